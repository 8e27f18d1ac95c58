"""Puts deployments into a store as an operator would, for tests."""

from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.kept_records import KeptRecords
from shardline_cluster.fleet.versioned_records import RecordStore


async def deploy(store: RecordStore[Deployment], deployment: Deployment) -> None:
    """Adds a deployment or replaces the one of this name."""
    await KeptRecords(store).change(deployment.name, lambda _: deployment)


async def undeploy(store: RecordStore[Deployment], name: str) -> None:
    """Takes a deployment away."""
    await KeptRecords(store).change(name, lambda _: None)
