"""What processes tell of themselves: metrics, logs, traces. Knows nothing of requests, lanes or replicas."""
