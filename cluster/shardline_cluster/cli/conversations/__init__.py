"""A conversation at a terminal: what is typed, said, kept and shown."""
