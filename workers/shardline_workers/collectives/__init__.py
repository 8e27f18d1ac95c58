"""How ranks that compute one model together exchange tensors. Knows no model, no queue and no network service."""
