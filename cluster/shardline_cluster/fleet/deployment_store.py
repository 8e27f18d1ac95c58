"""Where desired deployments lie, so that routers and a restarted controller find them."""

from collections.abc import Mapping
from typing import Protocol

from shardline_cluster.fleet.deployment import Deployment


class DeploymentStore(Protocol):
    """Desired deployments by name. All methods raise QueueUnavailableError where no answer came."""

    async def put(self, deployment: Deployment) -> None:
        """Adds a deployment or replaces the one of this name."""
        ...

    async def delete(self, name: str) -> None:
        """Takes a deployment away; its lane lives on until it is empty."""
        ...

    async def all(self) -> Mapping[str, Deployment]:
        """Every deployment by name."""
        ...

    async def close(self) -> None:
        """Closes connections."""
        ...
