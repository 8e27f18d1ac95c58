"""A replica's leader: claim → step → commit, each in its own loop, so that none of them waits for another.

    claims ──start──▶ EngineDriver ──turn──▶ step thread
       ▲                                        │ tokens
    HeldRequests ◀────────── record ────────────┘
       │
    commits · restores · releases ──▶ RequestQueue

What is decided stands in `HeldRequests`; here is only who waits for what. All loops live and die together: an error in
one of them, or a step over its limit, ends the leader, and its leases are reclaimed. Half alive it would hold requests
that nobody computes.
"""

import asyncio
import logging
import random
import secrets
import time
from collections import deque
from dataclasses import dataclass

from shardline_cluster.fleet.replica_state import ReplicaState
from shardline_cluster.processes.first_end import first_end
from shardline_cluster.queue.calls import CommitCall, RestoreCall
from shardline_cluster.queue.published import Subscribed
from shardline_cluster.queue.records import Grant
from shardline_cluster.queue.request_queue import RequestQueue
from shardline_cluster.replica.changes import Changes
from shardline_cluster.replica.claim_size import ClaimSize, claim_size
from shardline_cluster.replica.engine_driver import EngineDriver, Turn
from shardline_cluster.replica.held_requests import HeldRequests
from shardline_cluster.replica.leader_telemetry import LeaderTelemetry
from shardline_cluster.replica.progress_watch import ProgressWatch
from shardline_cluster.replica.queue_calls import until_answered
from shardline_cluster.replica.registration import Registration
from shardline_cluster.replica.running_batch import RunningBatch
from shardline_cluster.replica.timed_wait import set_within
from shardline_workers.text.text_model import TextModel

LEAST_POLL_S = 0.02  # between two claims that bring nothing, whatever the queue says of its next event
TURNS_AHEAD = 2  # one that runs, and one that begins as soon as that ends, whatever the event loop does meanwhile
MAX_RELEASES = 256  # of one call: work of a script is bounded

_LOG = logging.getLogger(__name__)


class ReplicaFailedError(Exception):
    """The replica cannot go on; everything it holds is to be reclaimed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderLimits:
    """How patient and how greedy a leader is."""

    probe_s: float = 10.0  # an idle engine shows once in so long that it still answers
    poll_s: float = 1.0  # longest wait between two looks into the queue, give or take a fifth
    max_uncommitted_tokens: int = 8192  # then no step is made until the queue has taken some
    drain_s: float = 8.0  # to commit and hand back everything


class Leader:
    """One incarnation's leader. `driver` and `watch` belong to it while it runs."""

    def __init__(
        self,
        queue: RequestQueue,
        registration: Registration,
        *,
        driver: EngineDriver,
        watch: ProgressWatch,
        text: TextModel,
        incarnation: str,
        limits: LeaderLimits | None = None,
        telemetry: LeaderTelemetry | None = None,
    ) -> None:
        self._queue = queue
        self._registration = registration
        self._driver = driver
        self._watch = watch
        self._incarnation = incarnation
        self._limits = limits or LeaderLimits()
        self._telemetry = telemetry or LeaderTelemetry()
        self._held = HeldRequests(incarnation=incarnation, terms=queue.terms)
        self._batch = RunningBatch(self._held, driver, text, incarnation=incarnation)
        self._subscribed = asyncio.Event()
        self._claim_due = asyncio.Event()  # there may be work, or room for it
        self._commit_due = asyncio.Event()  # there is something new to say, or to look at
        self._step_due = asyncio.Event()
        self._errand_due = asyncio.Event()
        self._answered = asyncio.Event()
        self._drain_told = asyncio.Event()  # by the queue
        self._last_turn_at = float("-inf")
        self._steps_ended = False
        self._free_slots = driver.room[0].free_slots

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until `stop` is set or the queue says drain; returns when everything was handed back.

        Raises:
            ReplicaFailedError: a step failed or took too long, or not everything could be handed back in time.
        """
        loops = [
            asyncio.create_task(loop, name=name)
            for name, loop in {
                "listen": self._listen(),
                "claim": self._claim(),
                "step": self._step(),
                "commit": self._commit(),
                "errands": self._run_errands(),
                "watch": self._watch_steps(),
                "drain": self._drain(stop),
            }.items()
        ]
        try:
            await first_end(*loops)
        finally:
            self._telemetry.close()

    # --- work comes in -------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        async for message in self._queue.listen(self._incarnation):
            if isinstance(message, Subscribed):
                self._subscribed.set()
                self._held.hurry()  # a reconnect: whoever answers now may be another server
            elif self._claim_size() is None:
                self._held.hurry()  # no claim will fetch the mail
            self._claim_due.set()
            self._commit_due.set()
        raise ReplicaFailedError("the subscription to the queue ended")

    async def _claim(self) -> None:
        await self._subscribed.wait()
        while True:
            self._claim_due.clear()
            size = self._claim_size()
            wait_s = self._limits.poll_s if size is None else await self._claim_once(size)
            if wait_s > 0:
                await set_within(self._claim_due, wait_s * random.uniform(0.8, 1.2))

    async def _claim_once(self, size: ClaimSize) -> float:
        """Makes one claim; tells how long there will be nothing new, in seconds."""
        call = self._held.next_claim(
            free_slots=size.free_slots, free_tokens=size.free_tokens, nonce=secrets.token_bytes(8)
        )
        reply = await until_answered(lambda: self._queue.claim(call), what="a claim", terms=self._queue.terms)
        changes = self._held.claimed(reply, self._now())
        self._telemetry.claimed(changes.started, now_ms=reply.now_ms)
        await self._apply(changes)
        if reply.value.granted:
            return 0.0
        return min(max(reply.value.next_event_ms / 1000, LEAST_POLL_S), self._limits.poll_s)

    def _claim_size(self) -> ClaimSize | None:
        if self._held.draining:
            return None
        capacity, starting = self._driver.room
        return claim_size(
            capacity,
            starting,
            uncommitted_tokens=self._held.num_uncommitted,
            most_uncommitted_tokens=self._limits.max_uncommitted_tokens,
        )

    # --- steps ---------------------------------------------------------------------------------------------------

    async def _step(self) -> None:
        turns: deque[asyncio.Future[Turn]] = deque()
        try:
            while not self._held.draining:
                await self._step_once(turns)
            while turns:
                await self._take_turn(turns)
        finally:
            for turn in turns:
                turn.cancel()
        self._steps_ended = True
        self._commit_due.set()
        await asyncio.Event().wait()  # the others go on

    async def _step_once(self, turns: "deque[asyncio.Future[Turn]]") -> None:
        """Begins turns ahead of the one that runs, and takes the one that ends first; or waits for a reason to."""
        self._step_due.clear()
        may_step = self._held.num_uncommitted < self._limits.max_uncommitted_tokens
        idle_s = self._last_turn_at + self._limits.probe_s - self._now()
        if self._driver.has_orders or (self._driver.has_work and may_step):
            while len(turns) < TURNS_AHEAD:
                turns.append(self._driver.turn(step=may_step))
        elif idle_s <= 0 and not (turns or self._driver.has_work):
            turns.append(self._driver.turn(step=True, probe=True))
        if turns:
            await self._take_turn(turns)
        elif self._driver.has_work:
            await self._step_due.wait()  # the queue takes nothing: its next answer goes on here
        else:
            await set_within(self._step_due, idle_s)

    async def _take_turn(self, turns: "deque[asyncio.Future[Turn]]") -> None:
        try:
            turn = await turns.popleft()
        except Exception as error:
            _LOG.exception("a step failed")
            raise ReplicaFailedError(f"a step failed: {type(error).__name__}: {error}") from error
        self._last_turn_at = self._now()
        self._telemetry.took(turn)
        self._batch.take(turn)
        self._commit_due.set()
        if turn.capacity.free_slots > self._free_slots:
            self._claim_due.set()
        self._free_slots = turn.capacity.free_slots

    async def _watch_steps(self) -> None:
        """Ends the leader, its heartbeat with it, when a step takes longer than anybody would believe."""
        while True:
            deadline, now = self._watch.deadline(), self._now()
            if deadline is not None and now >= deadline:
                raise ReplicaFailedError(f"a step took longer than its limit of {self._watch.limit_s:.1f} s")
            pause_s = self._watch.least_limit_s / 4
            await asyncio.sleep(pause_s if deadline is None else min(pause_s, deadline - now))

    # --- tokens go out -------------------------------------------------------------------------------------------

    async def _commit(self) -> None:
        """Commits what is new, one call at a time; steps that end meanwhile are merged into the next one."""
        while True:
            self._commit_due.clear()
            now = self._now()
            if self._steps_ended and not self._held.has_unsaid(now):
                self._held.release_all()
                self._errand_due.set()
            due_in = self._held.commit_due_in(now)
            if due_in > 0:
                await set_within(self._commit_due, due_in)
                continue
            await self._commit_once(self._held.next_commit(now))

    async def _commit_once(self, call: CommitCall) -> None:
        sent_s = time.perf_counter()
        reply = await until_answered(lambda: self._queue.commit(call), what="a commit", terms=self._queue.terms)
        self._registration.heard()
        self._telemetry.committed(call, time.perf_counter() - sent_s)
        await self._apply(self._held.committed(call, reply, self._now()))
        if reply.identity != self._registration.identity:
            told = await self._registration.repeat()
            self._held.answered(told.identity, self._now())

    async def _run_errands(self) -> None:
        """Sends restores and releases, each until it is answered."""
        while True:
            self._errand_due.clear()
            grants = self._held.take_releases()
            parts = [grants[at : at + MAX_RELEASES] for at in range(0, len(grants), MAX_RELEASES)]
            calls = [*map(self._restore, self._held.take_restores()), *map(self._release, parts)]
            if calls:
                await asyncio.gather(*calls)
            else:
                await self._errand_due.wait()

    async def _restore(self, call: RestoreCall) -> None:
        reply = await until_answered(lambda: self._queue.restore(call), what="a restore", terms=self._queue.terms)
        await self._apply(self._held.restored(call, reply, self._now()))

    async def _release(self, grants: list[tuple[str, Grant]]) -> None:
        reply = await until_answered(
            lambda: self._queue.release(self._incarnation, grants), what="a release", terms=self._queue.terms
        )
        self._held.released(grants, reply.identity, self._now())
        await self._apply(Changes())

    async def _apply(self, changes: Changes) -> None:
        """Carries an answer over to the engine and lets every loop look again."""
        self._telemetry.dropped(changes.dropped)
        await self._batch.apply(changes)
        if changes.dropped:
            self._claim_due.set()
        self._step_due.set()
        self._commit_due.set()
        self._answered.set()
        if self._held.has_errands:
            self._errand_due.set()
        if self._held.draining:
            self._drain_told.set()

    # --- the end -------------------------------------------------------------------------------------------------

    async def _drain(self, stop: asyncio.Event) -> None:
        """Waits until told to drain, then until nothing is held any more."""
        await first_end(stop.wait(), self._drain_told.wait())
        self._held.begin_drain()
        self._step_due.set()
        _LOG.info("draining: %d requests go back", self._held.num_held)
        try:
            async with asyncio.timeout(self._limits.drain_s):
                await self._registration.tell(ReplicaState.DRAINING)
                while not (self._steps_ended and self._held.owes_nothing):
                    self._answered.clear()
                    await self._answered.wait()
        except TimeoutError as error:
            raise ReplicaFailedError(
                f"{self._held.num_held} requests could not be handed back within {self._limits.drain_s:.0f} s"
            ) from error

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
