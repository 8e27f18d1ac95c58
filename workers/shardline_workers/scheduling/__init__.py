"""What enters the next step: pure decisions over plain data."""
