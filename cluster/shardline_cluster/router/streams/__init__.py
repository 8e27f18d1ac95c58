"""The router's half of the token log's protocol, and what its clients read of it."""
