"""The command line: shardline serve, generate, chat, status, version."""
