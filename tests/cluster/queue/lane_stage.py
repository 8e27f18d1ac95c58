"""A `LaneWorld` for interleavings that are told step by step: who does what, and which answer arrives."""

import asyncio
from typing import Protocol

from shardline_cluster.queue.answers import Snapshot
from tests.cluster.queue.lane_calm import finish
from tests.cluster.queue.lane_harness import LaneHarness
from tests.cluster.queue.lane_wire import Call
from tests.cluster.queue.lane_world import TICK_MS, LaneWorld, Process, Wish
from tests.cluster.queue.leader_process import LeaderProcess
from tests.cluster.queue.router_process import Client, RouterProcess


class Stage:
    """Two leaders L0 and L1, two routers R0 and R1, and clients that have not come yet. The first hold is over."""

    def __init__(self, harness: LaneHarness, loop: asyncio.AbstractEventLoop, *wishes: Wish, length: int = 6) -> None:
        self.world = LaneWorld(harness, loop, list(wishes or (Wish(),)), length=length, may_forget=False)
        self.harness = harness
        self.wait(harness.terms.hold_ms + TICK_MS)

    # --- who -----------------------------------------------------------------------------------------------------

    def leader(self, slot: str) -> LeaderProcess:
        """The leader in a slot."""
        process = self.world.processes[slot]
        assert isinstance(process, LeaderProcess), f"{slot} is no leader"
        return process

    def router(self, slot: str) -> RouterProcess:
        """The router in a slot."""
        process = self.world.processes[slot]
        assert isinstance(process, RouterProcess), f"{slot} is no router"
        return process

    def client(self, number: int = 0) -> Client:
        """A client."""
        return self.world.clients[number]

    def record(self, number: int = 0) -> Snapshot:
        """The record of a client's request after the last call."""
        info = self.client(number).info
        assert info is not None, "not accepted yet"
        return self.world.judge.seen.shots[info.id]

    def owner(self, number: int = 0) -> str:
        """Slot of the leader to whom a client's request was given last."""
        info = self.client(number).info
        assert info is not None, "not accepted yet"
        return self.world.judge.seen.owners[info.id].incarnation.partition(".")[0]

    # --- what ----------------------------------------------------------------------------------------------------

    def come(self, slot: str, number: int = 0) -> None:
        """A client comes to a router, and everything that follows gets through."""
        self.world.open(self.client(number), self.router(slot))
        self.flush(self.router(slot))

    def flush(self, process: Process) -> None:
        """All calls of a process get through, and those that follow."""
        while waiting := process.wire.unanswered():
            self.world.push(process, waiting[0])

    def claim(self, slot: str) -> None:
        """A leader claims."""
        leader = self.leader(slot)
        self.world.push(leader, leader.claim())

    def generate(self, slot: str, steps: int = 1) -> None:
        """A leader's engine makes steps that nobody has heard of yet."""
        leader = self.leader(slot)
        for _ in range(steps):
            for held in list(leader.running.values()):
                leader.generate(held)

    def work(self, slot: str, steps: int = 1) -> None:
        """A leader makes steps and commits each."""
        for _ in range(steps):
            self.generate(slot)
            self.commit(slot)

    def commit(self, slot: str) -> Call:
        """A leader commits, and what follows gets through."""
        leader = self.leader(slot)
        call = leader.commit()
        self.world.push(leader, call)
        self.flush(leader)
        return call

    def half(self, process: Process, call: Call) -> None:
        """A call is executed; its answer is lost."""
        self.world.execute(process.incarnation, call, lose_reply=True)

    def read(self, slot: str) -> None:
        """A router reads its messages, and what follows gets through."""
        router = self.router(slot)
        while router.mail:
            router.read_message()
        self.flush(router)

    def wait(self, ms: int) -> None:
        """Time passes; healthy processes do what is due."""
        for _ in range(-(-ms // TICK_MS)):
            self.world.tick()

    def finish(self) -> None:
        """Nothing fails any more; everything ends and is judged."""
        finish(self.world)

    def reconnect(self, slot: str) -> None:
        """A process finds the server that took over, and everything that follows gets through."""
        process = self.world.processes[slot]
        assert process is not None, f"{slot} is dead"
        self.world.reconnect(process)
        if isinstance(process, LeaderProcess):
            self.commit(slot)
        self.flush(process)


class SetStage(Protocol):
    """What the fixture `stage_on` is."""

    def __call__(self, *wishes: Wish, length: int = 6) -> Stage: ...
