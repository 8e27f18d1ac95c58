"""Ranks in processes of their own: how they are started, told what to compute, and given up together."""
