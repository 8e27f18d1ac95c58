"""The data plane: files, text, scheduling, kernels and the engine. Knows no queue and no network service."""
