"""The fleet's reports in memory: for tests and one-process experiments."""

from collections.abc import Mapping

from shardline_cluster.fleet.fleet_report import FleetReport


class MemoryFleetReportStore:
    """A `FleetReportStore` that forgets with its process."""

    def __init__(self) -> None:
        self._reports: dict[str, FleetReport] = {}

    async def put(self, report: FleetReport) -> None:
        """See FleetReportStore."""
        self._reports[report.cluster] = report

    async def all(self) -> Mapping[str, FleetReport]:
        """See FleetReportStore."""
        return dict(self._reports)

    async def close(self) -> None:
        """Nothing to close."""
