"""What one rank runs: the step's tensors, the model, the sampler."""
