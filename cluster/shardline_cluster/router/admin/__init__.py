"""What operators ask a router: deployments, replicas, keys, usage."""
