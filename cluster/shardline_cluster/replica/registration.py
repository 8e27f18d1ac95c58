"""What a replica says of itself in its lane, from the first moment of its life to the last."""

import asyncio
import dataclasses
import os
import socket
import time
from collections.abc import Mapping

from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_cluster.queue.calls import Member, MemberRole
from shardline_cluster.queue.request_queue import Reply, RequestQueue
from shardline_cluster.replica.queue_calls import until_answered
from shardline_workers.engine import EngineDescription


class Registration:
    """Registers a leader and its status. `identity` is the server that last heard of it."""

    def __init__(self, queue: RequestQueue, spec: ReplicaSpec) -> None:
        self._queue = queue
        status = ReplicaStatus(
            deployment=spec.deployment.name,
            replica=spec.replica,
            settings=spec.deployment.settings,
            state=ReplicaState.LOADING,
            pid=os.getpid(),
            host=socket.gethostname(),
            started_at=time.time(),
            gang=spec.gang,
        )
        self._status = status
        self._member = Member(incarnation=spec.incarnation, role=MemberRole.LEADER)
        self.identity: str | None = None
        self.heard_s = time.monotonic()  # when the queue last answered this replica

    @property
    def state(self) -> ReplicaState:
        """What was told last."""
        return self._status.state

    def describe(self, engine: EngineDescription) -> None:
        """What was loaded; goes out with the next telling."""
        self._status = dataclasses.replace(self._status, details=dict(engine.details))
        self._member = dataclasses.replace(
            self._member,
            numerics_id=engine.numerics_id,
            max_slots=engine.max_num_seqs,
            max_tokens=engine.kv_cache_tokens,
        )

    def took(self, load_s: Mapping[str, float]) -> None:
        """Seconds of phases of loading that are over; go out with the next telling."""
        self._status = dataclasses.replace(self._status, load_s={**self._status.load_s, **load_s})

    async def tell(
        self, state: ReplicaState, *, reason: str = "", details: Mapping[str, str] | None = None
    ) -> Reply[None]:
        """Registers with a new state, until it is answered. Renews the lease."""
        self._status = dataclasses.replace(
            self._status, state=state, reason=reason, details={**self._status.details, **(details or {})}
        )
        return await self.repeat()

    async def repeat(self) -> Reply[None]:
        """Registers again as last told: renews the lease, or tells a server that has not heard of it."""
        member = dataclasses.replace(self._member, status=to_json(self._status))
        reply = await until_answered(lambda: self._queue.register(member), what="registering", terms=self._queue.terms)
        self.identity = reply.identity
        self.heard()
        return reply

    def heard(self) -> None:
        """The queue has answered a call that renews the lease."""
        self.heard_s = time.monotonic()

    async def keep(self) -> None:
        """Repeats once a heartbeat, for ever: keeps the lease where no commit does it, while a model loads."""
        while True:
            await self.repeat()
            await asyncio.sleep(self._queue.terms.heartbeat_ms / 1000)
