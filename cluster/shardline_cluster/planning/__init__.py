"""Which GPUs a model needs, and which ranks go where: pure decisions over sizes and nodes."""
