"""Leases of controllers in memory: for tests."""

from collections.abc import Callable
from dataclasses import dataclass, field

from shardline_cluster.fleet.controller_lease import LEASE_S, NotInChargeError


@dataclass(slots=True)
class LeaseTable:
    """The leases that several controllers share: by cluster, who has it and until when."""

    clock: Callable[[], float]
    held: dict[str, tuple[str, float]] = field(default_factory=dict)


class MemoryControllerLease:
    """A `ControllerLease` over a shared table."""

    def __init__(self, table: LeaseTable, *, cluster: str, holder: str) -> None:
        self._table = table
        self._cluster = cluster
        self._holder = holder

    async def renew(self) -> None:
        """See `ControllerLease`."""
        holder = await self.holder()
        if holder not in ("", self._holder):
            raise NotInChargeError(self._cluster, holder)
        self._table.held[self._cluster] = (self._holder, self._table.clock() + LEASE_S)

    async def holder(self) -> str:
        """See `ControllerLease`."""
        holder, until_s = self._table.held.get(self._cluster, ("", 0.0))
        return holder if self._table.clock() < until_s else ""

    async def release(self) -> None:
        """See `ControllerLease`."""
        if await self.holder() == self._holder:
            del self._table.held[self._cluster]

    async def close(self) -> None:
        """Nothing to close."""
