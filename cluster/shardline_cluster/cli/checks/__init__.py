"""What `shardline doctor` looks at."""
