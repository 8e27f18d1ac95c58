"""One key in Redis that holds something by itself: a hash of records, a lease, a list."""

from typing import Any

from redis.exceptions import ResponseError

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections


class RedisKey:
    """A key and the connections through which it is read and written. Belongs to one event loop."""

    def __init__(self, url: str, name: str, *, timeout_s: float, num_connections: int = 1) -> None:
        """Connects with the first call. A call that takes longer than `timeout_s` counts as not answered.

        Raises:
            ConfigurationError: the URL is none.
        """
        self.name = name
        self._connections = RedisConnections(RedisAddress.parse(url), size=num_connections, timeout_s=timeout_s)

    async def execute(self, command: str, *arguments: str | int) -> Any:
        """What a command answers that has the key as its first argument. One attempt.

        Raises:
            QueueUnavailableError: no answer came, or the server refused.
        """
        return await self._call(command, self.name, *arguments)

    async def evaluate(self, script: str, *arguments: str | int) -> Any:
        """What a script answers whose KEYS[1] is the key. Raises as `execute`."""
        return await self._call("EVAL", script, 1, self.name, *arguments)

    async def close(self) -> None:
        """Closes connections."""
        await self._connections.close()

    async def _call(self, *command: str | int) -> Any:
        try:
            return await self._connections.execute(*command)
        except ResponseError as error:  # such as a full server, or another program's key
            raise QueueUnavailableError(f"Redis refused to handle {self.name} ({error}): try again") from error
