"""The leader of one replica: claim, step, commit."""
