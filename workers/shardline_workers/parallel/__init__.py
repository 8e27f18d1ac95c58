"""Ranks that compute one model together: how they exchange tensors. Knows no model, no queue and no network service."""
