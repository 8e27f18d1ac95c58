"""Random mishaps, one at a time, under many requests: every log stays whole and every request ends once."""

import asyncio
import contextlib
import random

import pytest

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.queue.answers import Snapshot
from shardline_cluster.queue.log_encoding import unpack_ids
from shardline_cluster.queue.records import RequestEnd, RequestState
from shardline_workers.simulated_engine import SimulatedEngineConfig, SimulatedStepTimes
from shardline_workers.simulated_tokens import TokenMode, check_chain
from tests.cluster.replica.simulated_lane import PROMPT, RunningLeader, SimulatedLane
from tests.cluster.replica.virtual_time import run_virtually

CONFIG = SimulatedEngineConfig(tokens=TokenMode.PER_INCARNATION, max_num_seqs=4, times=SimulatedStepTimes(step_s=0.25))
NUM_REQUESTS, NUM_MISHAPS = 10, 5


class Witness:
    """Reads every log again and again and remembers the most that it ever saw, as a client does."""

    def __init__(self, lane: SimulatedLane) -> None:
        self._lane = lane
        self._seen: dict[tuple[str, int], tuple[int, ...]] = {}
        self._ends: dict[str, RequestEnd] = {}

    async def watch(self, request_ids: list[str]) -> None:
        """Never ends."""
        while True:
            with contextlib.suppress(QueueUnavailableError):
                for request_id in request_ids:
                    reply = await self._lane.queue.look(request_id, "tenant")
                    if isinstance(reply.value, Snapshot):  # a rollback may have taken it for a moment
                        self._compare(request_id, reply.value)
            await asyncio.sleep(0.25)

    def _compare(self, request_id: str, now: Snapshot) -> None:
        for sequence, log in enumerate(now.logs):
            ids = unpack_ids(log.ids)
            known = self._seen.get((request_id, sequence), ())
            shared = min(len(ids), len(known))
            assert ids[:shared] == known[:shared], f"{request_id}: what a client saw was replaced"
            self._seen[request_id, sequence] = max(ids, known, key=len)
        if now.end is not None:
            assert self._ends.setdefault(request_id, now.end).same_as(now.end), f"{request_id}: another end"

    def is_whole(self, request_id: str, end: RequestEnd) -> None:
        """Nothing that was ever seen lies past the end."""
        for sequence, offset in enumerate(end.offsets):
            assert len(self._seen.get((request_id, sequence), ())) <= offset


class Mishaps:
    """Things that go wrong, each undone before the next one."""

    def __init__(self, lane: SimulatedLane, chance: random.Random) -> None:
        self._lane = lane
        self._chance = chance
        self._num_leaders = 0
        self.leaders: list[RunningLeader] = []

    def start_leader(self) -> None:
        self._num_leaders += 1
        self.leaders.append(self._lane.lead(f"leader-{self._num_leaders}", CONFIG))

    async def next(self) -> None:
        await self._chance.choice([self._rollback, self._kill, self._outage, self._lose_replies, self._drain])()
        await asyncio.sleep(self._lane.terms.hold_ms / 1000 + self._lane.terms.lease_ms / 1000)

    async def _rollback(self) -> None:
        snapshot = self._lane.server.snapshot()
        await asyncio.sleep(self._chance.uniform(0, 1.9))
        if self._chance.random() < 0.5:
            self._lane.server.go_down()
            await asyncio.sleep(self._chance.uniform(0, 8))
            self._lane.server.rollback(snapshot)
            self._lane.server.come_up()
        else:
            self._lane.server.rollback(snapshot)

    async def _kill(self) -> None:
        await self.leaders.pop(self._chance.randrange(len(self.leaders))).kill()
        self.start_leader()

    async def _outage(self) -> None:
        self._lane.server.go_down()
        await asyncio.sleep(self._chance.uniform(0, 20))
        self._lane.server.come_up()

    async def _lose_replies(self) -> None:
        for leader in self.leaders:
            leader.queue.lose_one_in = self._chance.randint(2, 5)
            leader.queue.runs_late_copies = self._chance.random() < 0.5
        await asyncio.sleep(3)
        for leader in self.leaders:
            leader.queue.lose_one_in, leader.queue.runs_late_copies = None, False

    async def _drain(self) -> None:
        leader = self.leaders.pop(self._chance.randrange(len(self.leaders)))
        leader.stop.set()
        await leader.task
        self.start_leader()


@pytest.mark.parametrize("seed", range(8))
def test_no_mishap_loses_repeats_or_mixes_a_token(seed: int) -> None:
    async def test() -> None:
        chance = random.Random(seed)
        async with SimulatedLane.open() as lane:
            mishaps, witness = Mishaps(lane, chance), Witness(lane)
            mishaps.start_leader()
            mishaps.start_leader()
            ids = [
                await lane.submit(max_tokens=chance.randint(1, 200), n=chance.choice([1, 1, 2]))
                for _ in range(NUM_REQUESTS)
            ]
            watching = asyncio.create_task(witness.watch(ids))
            await asyncio.sleep(lane.terms.hold_ms / 1000)

            for _ in range(NUM_MISHAPS):
                await mishaps.next()
                assert not watching.done(), watching.result()

            for request_id in ids:
                end = await lane.end(request_id, within_s=600)
                assert end.state is RequestState.DONE
                witness.is_whole(request_id, end)
                for sequence, offset in enumerate(end.offsets):
                    ids_in_log = await lane.ids(request_id, sequence)
                    assert len(ids_in_log) == offset
                    assert check_chain(tuple(PROMPT.encode()), ids_in_log, sequence=sequence) is None
            assert not watching.done()
            assert not any(leader.task.done() for leader in mishaps.leaders)

    run_virtually(test())
