"""The Open Inference Protocol: other people's messages, to and from the core's."""
