"""Keeps the replicas that the deployments ask for: observe, decide, act."""
