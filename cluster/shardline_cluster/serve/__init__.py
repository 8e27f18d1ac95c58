"""`shardline serve`: everything on this machine, started in order, supervised, and taken along at the end."""
