"""Desired deployments in memory: for tests and one-process experiments."""

from collections.abc import Mapping

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.fleet.deployment import Deployment


class MemoryDeploymentStore:
    """A `DeploymentStore` that forgets with its process. Share one instance to share its deployments."""

    def __init__(self) -> None:
        self.is_down = False  # True: every call fails, as with a server that is away
        self._deployments: dict[str, Deployment] = {}

    async def put(self, deployment: Deployment) -> None:
        """Adds a deployment or replaces the one of this name."""
        self._require_up()
        self._deployments[deployment.name] = deployment

    async def delete(self, name: str) -> None:
        """Takes a deployment away; an unknown name is none the less gone."""
        self._require_up()
        self._deployments.pop(name, None)

    async def all(self) -> Mapping[str, Deployment]:
        """Every deployment by name, as of now."""
        self._require_up()
        return dict(self._deployments)

    async def close(self) -> None:
        """Nothing to close."""

    def _require_up(self) -> None:
        if self.is_down:
            raise QueueUnavailableError("the deployments in memory are out of reach: try again")
