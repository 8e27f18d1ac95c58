"""The fleet's report in memory: for tests and one-process experiments."""

from shardline_cluster.fleet.fleet_report import FleetReport


class MemoryFleetReportStore:
    """A `FleetReportStore` that forgets with its process."""

    def __init__(self) -> None:
        self._report: FleetReport | None = None

    async def put(self, report: FleetReport) -> None:
        """See FleetReportStore."""
        self._report = report

    async def get(self) -> FleetReport | None:
        """See FleetReportStore."""
        return self._report

    async def close(self) -> None:
        """Nothing to close."""
