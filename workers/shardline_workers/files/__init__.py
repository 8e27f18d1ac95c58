"""Where a model lies and what its files hold: headers and memory maps, no torch."""
