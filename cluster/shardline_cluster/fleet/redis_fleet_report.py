"""The fleet's reports in Redis: one hash, cluster → JSON, overwritten in every round of a cluster's controller."""

from collections.abc import Mapping

from redis.exceptions import ResponseError

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.fleet.fleet_report import FleetReport
from shardline_cluster.fleet.json_encoding import from_json, to_json
from shardline_cluster.queue.lane_names import fleet_reports_key
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections

CALL_TIMEOUT_S = 2.0


class RedisFleetReportStore:
    """A `FleetReportStore` over one Redis server. Belongs to one event loop."""

    def __init__(self, url: str, *, prefix: str, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._key = fleet_reports_key(prefix)
        self._connections = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=timeout_s)

    async def put(self, report: FleetReport) -> None:
        """See FleetReportStore."""
        try:
            await self._connections.execute("HSET", self._key, report.cluster, to_json(report))
        except ResponseError as error:  # such as a full server
            raise QueueUnavailableError(f"Redis refused to take the fleet's report ({error}): try again") from error

    async def all(self) -> Mapping[str, FleetReport]:
        """See FleetReportStore.

        Raises:
            ConfigurationError: a report was written by another version, and cannot be read.
        """
        flat = await self._connections.execute("HGETALL", self._key)
        return {name.decode(): from_json(FleetReport, text) for name, text in zip(flat[::2], flat[1::2], strict=True)}

    async def close(self) -> None:
        """See FleetReportStore."""
        await self._connections.close()
