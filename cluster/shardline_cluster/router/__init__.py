"""The gRPC front: validates, tokenises, submits, streams."""
