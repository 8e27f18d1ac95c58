"""Flags that commands share, and where else their values come from."""
