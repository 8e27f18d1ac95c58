"""The fleet's reports in Redis: one hash, cluster → JSON, overwritten in every round of a cluster's controller."""

from collections.abc import Mapping

from shardline_cluster.fleet.fleet_report import FleetReport
from shardline_cluster.fleet.json_encoding import from_json, to_json
from shardline_cluster.queue.lane_names import fleet_reports_key
from shardline_cluster.queue.redis_key import RedisKey

CALL_TIMEOUT_S = 2.0


class RedisFleetReportStore:
    """A `FleetReportStore` over one Redis server. Belongs to one event loop."""

    def __init__(self, url: str, *, prefix: str, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._key = RedisKey(url, fleet_reports_key(prefix), timeout_s=timeout_s)

    async def put(self, report: FleetReport) -> None:
        """See FleetReportStore."""
        await self._key.execute("HSET", report.cluster, to_json(report))

    async def all(self) -> Mapping[str, FleetReport]:
        """See FleetReportStore.

        Raises:
            ConfigurationError: a report was written by another version, and cannot be read.
        """
        flat = await self._key.execute("HGETALL")
        return {name.decode(): from_json(FleetReport, text) for name, text in zip(flat[::2], flat[1::2], strict=True)}

    async def close(self) -> None:
        """See FleetReportStore."""
        await self._key.close()
