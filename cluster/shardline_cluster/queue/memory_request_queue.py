"""The request queue in memory: for tests, demonstrations and one-process experiments. Nothing of it is durable."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from shardline_cluster.queue import memory_leader_scripts, memory_router_scripts
from shardline_cluster.queue.answers import (
    ClaimAnswer,
    CommitAnswer,
    Ended,
    ForgetCode,
    Gone,
    LaneView,
    OnHold,
    RestoreAnswer,
    Snapshot,
    SubmitAnswer,
)
from shardline_cluster.queue.calls import ClaimCall, CommitCall, DeadMember, LaneBounds, Member, RestoreCall
from shardline_cluster.queue.memory_lane import MemoryLane
from shardline_cluster.queue.memory_restore import restore
from shardline_cluster.queue.memory_server import MemoryServer
from shardline_cluster.queue.memory_sweep import sweep
from shardline_cluster.queue.published import QueueMessage
from shardline_cluster.queue.records import Grant, Submission
from shardline_cluster.queue.request_queue import Reply
from shardline_cluster.queue.tenant_usage import TenantUsage
from shardline_cluster.queue.terms import QueueTerms

T = TypeVar("T")

__all__ = ["MemoryRequestQueue", "MemoryServer"]


class MemoryRequestQueue:
    """One lane of a `MemoryServer`, as `RequestQueue` describes it."""

    def __init__(self, server: MemoryServer, lane: str) -> None:
        self._server = server
        self._lane = lane

    @property
    def lane(self) -> str:
        """Name of the lane."""
        return self._lane

    @property
    def terms(self) -> QueueTerms:
        """The periods by which this lane lives."""
        return self._server.terms

    async def _run(self, script: Callable[[MemoryLane], T]) -> Reply[T]:
        await asyncio.sleep(0)  # other tasks run between two calls, as they would with a real server
        return self._server.run(self._lane, script)

    async def register(self, member: Member) -> Reply[None]:
        """Gives a leader or router its lease, or renews it."""
        return await self._run(lambda lane: memory_router_scripts.register(lane, member))

    async def configure(self, bounds: LaneBounds) -> Reply[None]:
        """Sets what the lane takes in."""
        return await self._run(lambda lane: memory_router_scripts.configure(lane, bounds))

    async def submit(self, router: str, listener_number: int, submission: Submission) -> Reply[SubmitAnswer]:
        """Accepts a request, with `router` listening unless it is a background request."""
        return await self._run(lambda lane: memory_router_scripts.submit(lane, router, listener_number, submission))

    async def claim(self, call: ClaimCall) -> Reply[ClaimAnswer]:
        """Grants waiting requests to a leader; renews its lease; sweeps."""
        return await self._run(lambda lane: memory_leader_scripts.claim(lane, call))

    async def commit(self, call: CommitCall) -> Reply[CommitAnswer]:
        """Appends a step's tokens, publishes them, renews the lease."""
        return await self._run(lambda lane: memory_leader_scripts.commit(lane, call))

    async def release(self, incarnation: str, grants: Sequence[tuple[str, Grant]]) -> Reply[None]:
        """Hands requests back with the tokens that they have. Counts nothing."""
        return await self._run(lambda lane: memory_leader_scripts.release(lane, incarnation, grants))

    async def cancel(self, request_id: str, tenant: str) -> Reply[Ended | OnHold | Gone]:
        """Ends a request now, or tells the end that it has."""
        return await self._run(lambda lane: memory_router_scripts.cancel(lane, request_id, tenant))

    async def attach(
        self, router: str, listener_number: int, request_id: str, tenant: str, *, held: Sequence[int] = ()
    ) -> Reply[Snapshot | OnHold | Gone]:
        """Registers a listener, then reads record and logs."""
        return await self._run(
            lambda lane: memory_router_scripts.attach(lane, router, listener_number, request_id, tenant, held=held)
        )

    async def detach(self, router: str, listener_number: int, request_id: str) -> Reply[None]:
        """Takes a listener away, unless a newer attach of this router has a higher number."""
        return await self._run(lambda lane: memory_router_scripts.detach(lane, router, listener_number, request_id))

    async def look(self, request_id: str, tenant: str) -> Reply[Snapshot | OnHold | Gone]:
        """Reads record and logs without listening."""
        return await self._run(lambda lane: memory_router_scripts.look(lane, request_id, tenant))

    async def sweep(self, router: str | None, dead: Sequence[DeadMember] = ()) -> Reply[None]:
        """Ends what is over. Renews the router's lease."""
        return await self._run(lambda lane: sweep(lane, router, dead))

    async def restore(self, call: RestoreCall) -> Reply[RestoreAnswer]:
        """Gives a server back what it may have forgotten."""
        return await self._run(lambda lane: restore(lane, call))

    async def forget(self, request_id: str, tenant: str) -> Reply[ForgetCode]:
        """Deletes an ended request before its retention is over."""
        return await self._run(lambda lane: memory_router_scripts.forget(lane, request_id, tenant))

    async def drain(self, incarnation: str) -> Reply[None]:
        """Puts a drain message into a leader's inbox."""
        return await self._run(lambda lane: memory_router_scripts.drain(lane, incarnation))

    async def view(self) -> Reply[LaneView]:
        """Counters and members of the lane."""
        return await self._run(memory_router_scripts.view)

    async def usage(self) -> Reply[tuple[TenantUsage, ...]]:
        """What the lane's ended requests have used, in order of tenants."""
        return await self._run(memory_router_scripts.usage)

    def listen(self, incarnation: str) -> AsyncIterator[QueueMessage]:
        """Messages for a leader or router, for as long as the caller iterates."""
        return self._server.messages(self._lane, incarnation)

    async def close(self) -> None:
        """Nothing to close: the lane belongs to the server."""
