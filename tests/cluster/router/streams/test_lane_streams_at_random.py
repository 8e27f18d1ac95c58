"""Routers under random schedules: calls run late and twice, answers and messages are lost, the server forgets once.

Tokens of two generations always differ, and each knows the one before it: text is unmixed exactly if every token's
parent is the token before it. Here leaders never restore, so that everything rests on the routers.
"""

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from shardline_cluster.errors import ShardlineError
from shardline_cluster.queue.answers import CommitCode
from shardline_cluster.queue.cursor import Cursor, advance, encode_cursor
from shardline_cluster.queue.log_encoding import pack_ids, unpack_ids
from shardline_cluster.queue.records import DisconnectAction, RequestEnd, RequestState, SequenceFinish
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.streams.lane_calls import LaneCall
from shardline_cluster.router.streams.lane_streams import LaneStreams
from shardline_cluster.router.streams.stream_reader import StreamReader
from tests.cluster.router.scripted_leader import ScriptedLeader
from tests.cluster.router.stepped_router import LANE, SteppedRouter, SteppedServer, submission

TERMS = QueueTerms()
TICK_MS = 200
TICKS_A_SWEEP = 5
LONGEST_DELAY = 4  # ticks that a call may be under way
LENGTH = 6
NUM_SCHEDULES = 60


@dataclass(eq=False)
class _Client:
    request_id: str
    router: SteppedRouter | None = None
    reader: StreamReader | None = None
    got: list[int] = field(default_factory=list)
    end: RequestEnd | None = None


class _Schedule:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = SteppedServer(TERMS)
        self.routers = [SteppedRouter(self.world, f"router-{i}") for i in range(2)]
        self.leader, self.num_leaders = ScriptedLeader(self.world.queue(), "leader-0"), 1
        self.parents: dict[int, int] = {}  # of each token; 0 for the first
        self.last: dict[str, int] = {}
        self.clients: list[_Client] = []
        self.since: dict[int, tuple[LaneCall, int]] = {}
        self.ticks = 0
        self.snapshots: list[bytes] = []
        self.rolled_back = False

    # --- what may happen ---

    async def submit(self) -> None:
        router = self.random.choice(self.routers)
        if len(self.clients) < 3 and router.lane.identity:
            request_id = f"{LANE}-{len(self.clients):032x}"
            request = submission(request_id, router.lane.identity, on_disconnect=DisconnectAction.CONTINUE)
            info = await router.submit(request)
            self.clients.append(_Client(request_id, router, router.open(request_id, info=info)))

    async def generate(self) -> None:
        held = list(self.leader.held)
        if not held:
            for granted in await self.leader.claim():
                ids = unpack_ids(granted.logs[0].ids)
                self.last[granted.info.id] = ids[-1] if ids else 0
            return
        request_id = self.random.choice(held)
        new = [self._token(request_id) for _ in range(self.random.randint(1, 2))]
        length = self.leader.length(request_id) + len(new)
        finish = SequenceFinish("length") if length >= LENGTH else None
        code = await self.leader.commit(request_id, new, finish=finish)
        if code is CommitCode.OK and not finish:
            return
        await self.leader.release(request_id)  # ended, held in a hold, or not this leader's any more

    def _token(self, request_id: str) -> int:
        token = len(self.parents) + 1
        self.parents[token] = self.last[request_id]
        self.last[request_id] = token
        return token

    async def network(self) -> None:
        router = self.random.choice(self.routers)
        await router.messages_come()
        if router.messages and self.random.random() < 0.5:
            if self.random.random() < 0.2:
                router.messages.pop(0)
            else:
                self._read_one(router)
        elif router.calls:
            call = self.random.choice(router.calls)
            hand_over = await router.execute(call)
            if self.random.random() < 0.15:
                router.calls.append(call)  # the answer was lost: the same call is sent again
            else:
                hand_over()

    def _read_one(self, router: SteppedRouter) -> None:
        rest = router.messages[1:]
        del router.messages[1:]
        router.read_messages()
        router.messages.extend(rest)

    async def come_or_go(self) -> None:
        if not self.clients:
            return
        client = self.random.choice(self.clients)
        if client.router and client.reader and self.random.random() < 0.3:
            client.router.leave(client.reader)
            client.router = client.reader = None
        self._come(client)

    def _come(self, client: _Client) -> None:
        if client.reader is None and client.end is None:
            client.router = self.random.choice(self.routers)
            cursor = advance(Cursor.start(1), 0, pack_ids(client.got), closed=False)
            client.reader = client.router.open(client.request_id, encode_cursor(cursor))

    async def tick(self) -> None:
        self.ticks += 1
        self.world.clock_ms += TICK_MS
        self.snapshots = [*self.snapshots[-TERMS.lost_window_ms // TICK_MS :], self.world.server.snapshot()]
        for router in self.routers:
            await self._hurry(router)
            if self.ticks % TICKS_A_SWEEP == 0:
                await router.sweep()

    async def _hurry(self, router: SteppedRouter) -> None:
        """Carries out what has been under way for long enough."""
        for call in list(router.calls):
            _, since = self.since.setdefault(id(call), (call, self.ticks))
            if self.ticks - since >= LONGEST_DELAY and any(c is call for c in router.calls):
                await router.carry_out(call)

    async def forget(self) -> None:
        """Once, the server falls back to what it was at most the window ago, and the leader dies with it."""
        if not self.rolled_back and self.snapshots and self.random.random() < 0.1:
            self.rolled_back = True
            self.world.server.rollback(self.random.choice(self.snapshots))
            self.leader = ScriptedLeader(self.world.queue(), f"leader-{self.num_leaders}")
            self.num_leaders += 1

    # --- what must hold ---

    def read(self) -> None:
        for client in self.clients:
            if client.router is None or client.reader is None:
                continue
            update = client.router.lane.stream_of(client.reader).take(client.reader)
            for token in (i for s in update.sequences for i in unpack_ids(s.ids)):
                before = client.got[-1] if client.got else 0
                assert self.parents[token] == before, f"{client.request_id}: {token} after {client.got}"
                client.got.append(token)
            if update.end is not None:
                client.end = update.end
                client.router.leave(client.reader)
                client.router = client.reader = None

    async def run(self) -> None:
        await self.world.past_the_hold()
        for router in self.routers:
            await router.start()
        steps = [self.submit, self.generate, self.generate, self.network, self.network, self.network]
        steps += [self.come_or_go, self.tick, self.forget]
        for _ in range(250):
            await self.random.choice(steps)()
            self.read()
        await self.come_to_rest()
        for router in self.routers:
            await router.stop()

    async def come_to_rest(self) -> None:
        """Without any more faults everything ends."""
        for _ in range(600):
            await self.tick()
            await self.generate()
            for router in self.routers:
                await router.settle()
            for client in self.clients:
                self._come(client)
            self.read()
            if all(client.end for client in self.clients):
                break
        for client in self.clients:
            assert client.end is not None, f"{client.request_id} never ended, got {client.got}"
            assert client.end.state is RequestState.DONE
            assert client.end.offsets == (len(client.got),)


@pytest.mark.parametrize("seed", range(NUM_SCHEDULES))
async def test_text_is_never_mixed_and_every_stream_ends(seed: int) -> None:
    await _Schedule(seed).run()


async def test_the_schedules_would_notice_routers_that_do_not_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that cannot fail proves nothing: without restores some schedule must break."""
    monkeypatch.setattr(LaneStreams, "_heal", lambda self, now_ms: [])
    broken = 0
    for seed in range(NUM_SCHEDULES):
        schedule = _Schedule(seed)
        try:
            await schedule.run()
        except (AssertionError, ShardlineError):
            broken += 1
        await asyncio.gather(*(router.stop() for router in schedule.routers))
        if broken:
            break

    assert broken
