"""The command `shardline`, one module for each of its commands."""

import os

# gRPC tells failed handshakes on standard error, beside our own words for them; it asks when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
