"""The fleet's report in Redis: one string, overwritten in every round of the controller."""

from redis.exceptions import ResponseError

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.fleet.fleet_report import FleetReport
from shardline_cluster.fleet.json_encoding import from_json, to_json
from shardline_cluster.queue.lane_names import check_prefix
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections

CALL_TIMEOUT_S = 2.0


class RedisFleetReportStore:
    """A `FleetReportStore` over one Redis server. Belongs to one event loop."""

    def __init__(self, url: str, *, prefix: str, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._key = f"{check_prefix(prefix)}:v1:fleet_report"
        self._connections = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=timeout_s)

    async def put(self, report: FleetReport) -> None:
        """See FleetReportStore."""
        try:
            await self._connections.execute("SET", self._key, to_json(report))
        except ResponseError as error:  # such as a full server
            raise QueueUnavailableError(f"Redis refused to take the fleet's report ({error}): try again") from error

    async def get(self) -> FleetReport | None:
        """See FleetReportStore."""
        text = await self._connections.execute("GET", self._key)
        return None if text is None else from_json(FleetReport, text)

    async def close(self) -> None:
        """See FleetReportStore."""
        await self._connections.close()
