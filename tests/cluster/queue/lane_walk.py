"""Random walks through a `LaneWorld` in which each event has a weight: they meet failures in the midst of work.

Hypothesis draws all rules alike and shrinks well, but seldom brings a request halfway before something fails. A walk
does: it was weighted until each broken rule of `lane_mutants` that chance can find was found soon. The same seed is the
same walk.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from shardline_cluster.queue.records import DisconnectAction
from tests.cluster.queue.lane_calm import calm_round, finish
from tests.cluster.queue.lane_harness import LaneHarness
from tests.cluster.queue.lane_world import TICK_MS, LaneWorld, Process, Wish
from tests.cluster.queue.leader_process import LeaderProcess
from tests.cluster.queue.router_process import RouterProcess

Option = tuple[float, Callable[[], object]]  # weight, event


@dataclass(frozen=True, slots=True)
class Mood:
    """What kind of failure a walk leans to."""

    server: float
    processes: float


MOODS = (Mood(6, 0.3), Mood(3, 1), Mood(0.2, 6))


def walk(harness: LaneHarness, loop: asyncio.AbstractEventLoop, seed: int) -> LaneWorld:
    """One schedule from its beginning to its calm end.

    Raises:
        ViolationError: something forbidden was seen.
    """
    chance = random.Random(seed)
    most_faults = (0, 1, 1, 2)[seed % 4]
    length = chance.choice((1, 2, 3, 9))
    world = LaneWorld(harness, loop, list(_wishes(chance)), length=length, may_forget=most_faults > 0)
    steps = Steps(world, chance, most_faults, chance.choice(MOODS))
    try:
        for _ in range(chance.choice((0, 0, 1, 2, 3, 4, 16))):
            calm_round(world)
        for _ in range(chance.randint(15, 60)):
            steps.take()
        finish(world)
    finally:
        world.close()
    return world


def _wishes(chance: random.Random) -> Iterator[Wish]:
    by_key: dict[str | None, Wish] = {}
    for _ in range(chance.choice((1, 1, 2, 2, 3))):
        key = chance.choice((None, "a", "a", "b"))
        wish = by_key.get(key) or Wish(
            key=key,
            num_sequences=chance.choice((1, 1, 2)),
            timeout_ms=chance.choice((None, None, None, 6 * TICK_MS, 14 * TICK_MS)),
            on_disconnect=chance.choice(tuple(DisconnectAction)),
            background=key is None and chance.random() < 0.2,
            prefill_ms=chance.choice((0, 0, 0, 2 * TICK_MS, 16 * TICK_MS)),
        )
        if key is not None:
            by_key[key] = wish
        yield wish


class Steps:
    """What can happen next, and how likely it is."""

    def __init__(self, world: LaneWorld, chance: random.Random, most_faults: int, mood: Mood) -> None:
        self._world, self._chance, self._most_faults, self._mood = world, chance, most_faults, mood

    def take(self) -> None:
        """One event."""
        options = list(self._options())
        event = self._chance.choices([e for _, e in options], [w for w, _ in options])[0]
        event()

    def _options(self) -> Iterator[Option]:
        world = self._world
        yield (6 if world.up else 12), world.tick
        for slot, process in world.processes.items():
            if process is None:
                yield 2, partial(world.start, slot)
            else:
                yield from self._process(slot, process)
        yield from self._clients()
        if world.orphans:
            yield 3, lambda: world.arrive_late(self._chance.randrange(100))
        if world.up and world.dead:
            yield 0.5, lambda: world.bury(self._chance.choice(world.dead))
        if world.judge.faults < self._most_faults and world.up:
            yield from self._server_fails()

    def _process(self, slot: str, process: Process) -> Iterator[Option]:
        world = self._world
        yield from self._calls(process)
        if process.paused:
            yield 1, lambda: world.wake(slot)
        elif process.wire.server != world.identity and world.up:
            yield 5, lambda: world.reconnect(process)
        if isinstance(process, RouterProcess):
            if process.mail:
                yield 8, lambda: world.message(process)
                yield 0.7, lambda: world.message(process, lose=True)
        elif not process.paused:
            yield from self._leader(slot, process)
        if world.judge.faults < self._most_faults:
            weight = self._mood.processes * (3 if isinstance(process, LeaderProcess) and process.running else 1)
            yield 0.25 * weight, lambda: world.crash(slot)
            yield 0.12 * weight, lambda: world.pause(slot)

    def _calls(self, process: Process) -> Iterator[Option]:
        world = self._world
        for call in process.wire.calls:
            if call.copies and world.up and call.server == world.identity:
                yield (10 if call.waiting else 3), partial(world.execute, process.incarnation, call)
                yield 1, partial(world.execute, process.incarnation, call, lose_reply=True)
                yield 0.7, partial(world.lose, call)
            if call.waiting:
                yield 0.7, partial(world.duplicate, process, call)
            if call.replies:
                yield 12, partial(world.receive, process, call)

    def _leader(self, slot: str, leader: LeaderProcess) -> Iterator[Option]:
        world = self._world
        if leader.may_claim:
            yield 4, leader.claim
        if leader.may_commit:
            yield (6 if leader.running else 0.5), leader.commit
        for held in leader.running.values():
            yield 5, partial(leader.generate, held)
        if world.up:
            yield 0.15, lambda: world.drain(leader)
        if leader.held.draining:
            yield 2, lambda: world.exit_drained(slot)

    def _clients(self) -> Iterator[Option]:
        world = self._world
        routers = [router for router in world.routers() if router.known and not router.paused]
        for client in world.clients:
            if client.over:
                continue
            if client.router is None:
                for router in routers:
                    yield 3, partial(world.open, client, router)
            else:
                yield 0.7, partial(world.leave, client)
                yield 0.08, partial(world.leave, client, for_good=True)
            if client.info is not None:
                for router in routers:
                    yield 0.2, partial(world.cancel, client, router)

    def _server_fails(self) -> Iterator[Option]:
        world, chance, weight = self._world, self._chance, self._mood.server

        def rollback() -> None:
            outage_ms = TICK_MS * chance.choice((0, 0, 1, 3, 16))
            world.rollback(chance.randint(0, 12), outage_ms=outage_ms, keep_replies=chance.random() < 0.5)

        def outage() -> None:
            world.outage(TICK_MS * chance.choice((1, 4, 16)), keep_replies=chance.random() < 0.5)

        def lose_everything() -> None:
            world.lose_everything(outage_ms=TICK_MS * chance.choice((0, 0, 1)), keep_replies=chance.random() < 0.5)

        yield weight, rollback
        yield 0.5, outage
        if self._most_faults > 1:
            yield 0.15 * weight, lose_everything
