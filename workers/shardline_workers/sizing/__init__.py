"""How large a model is, from its configuration alone: no weight is read, and no torch is needed."""
