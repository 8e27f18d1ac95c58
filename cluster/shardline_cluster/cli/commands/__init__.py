"""One module for each command of `shardline`."""
