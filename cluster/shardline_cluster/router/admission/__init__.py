"""From a client's request to what the queue takes: checked, tokenised, resolved, charged."""
