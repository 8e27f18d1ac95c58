"""Ranks that compute one model together: how it is dealt out to them, and how they exchange tensors."""
