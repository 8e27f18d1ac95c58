"""Desired deployments in Redis: one hash, name → JSON."""

from collections.abc import Mapping
from typing import Any

from redis.exceptions import ResponseError

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.json_encoding import from_json, to_json
from shardline_cluster.queue.lane_names import deployments_key
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections

NUM_CONNECTIONS = 2


class RedisDeploymentStore:
    """`DeploymentStore` over `PREFIX:v1:deployments`. Belongs to one event loop; a call is one attempt."""

    def __init__(self, url: str, *, prefix: str, call_timeout_s: float = 1.0) -> None:
        self._key = deployments_key(prefix)
        self._connections = RedisConnections(RedisAddress.parse(url), size=NUM_CONNECTIONS, timeout_s=call_timeout_s)

    async def put(self, deployment: Deployment) -> None:
        """Adds a deployment or replaces the one of this name."""
        await self._execute("HSET", self._key, deployment.name, to_json(deployment))

    async def delete(self, name: str) -> None:
        """Takes a deployment away; its lane lives on until it is empty."""
        await self._execute("HDEL", self._key, name)

    async def all(self) -> Mapping[str, Deployment]:
        """Every deployment by name.

        Raises:
            ConfigurationError: one was written by another version, and cannot be read.
        """
        flat = await self._execute("HGETALL", self._key)
        names_and_texts = zip(flat[::2], flat[1::2], strict=True)
        return {name.decode(): from_json(Deployment, text) for name, text in names_and_texts}

    async def _execute(self, *command: str) -> Any:
        try:
            return await self._connections.execute(*command)
        except ResponseError as error:  # such as a full server
            raise QueueUnavailableError(f"Redis refused to handle the deployments ({error}): try again") from error

    async def close(self) -> None:
        """Closes connections."""
        await self._connections.close()
