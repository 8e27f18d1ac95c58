"""Processes that this program starts, and that must not outlive it."""
