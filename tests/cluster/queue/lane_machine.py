"""The hypothesis machine: it draws schedules of a `LaneWorld`, in which nothing forbidden may be seen."""

import asyncio
from collections.abc import Callable
from enum import Enum

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from shardline_cluster.queue.records import DisconnectAction
from tests.cluster.queue.lane_calm import calm_round, finish
from tests.cluster.queue.lane_harness import LaneHarness
from tests.cluster.queue.lane_wire import Call
from tests.cluster.queue.lane_world import TICK_MS, LaneWorld, Process, Wish
from tests.cluster.queue.leader_process import LeaderProcess
from tests.cluster.queue.router_process import Client

SLOTS = ("L0", "L1", "R0", "R1", "R2")
ANY = st.integers(0, 11)  # an index into whatever there is
OUTAGES_MS = st.sampled_from((0, 0, 0, TICK_MS, 3 * TICK_MS, 16 * TICK_MS))


class Passage(Enum):
    """What becomes of a call."""

    THROUGH = "executed and answered"
    EXECUTED = "executed; the answer is read later"
    ANSWER_LOST = "executed; the answer is lost"
    LOST = "lost"
    READ = "an answer is read"
    TWICE = "sent once more"


class Work(Enum):
    """What a leader does."""

    CLAIM = "claim"
    GENERATE = "generate"
    COMMIT = "commit"


WORKS = (
    (Work.CLAIM,),
    (Work.GENERATE,),
    (Work.GENERATE, Work.COMMIT),
    (Work.GENERATE, Work.COMMIT, Work.CLAIM),
    (Work.COMMIT,),
)


# More often what brings a schedule forward than what holds it up.
PASSAGES = st.sampled_from(
    (
        Passage.THROUGH,
        Passage.THROUGH,
        Passage.THROUGH,
        Passage.EXECUTED,
        Passage.EXECUTED,
        Passage.READ,
        Passage.READ,
        Passage.ANSWER_LOST,
        Passage.LOST,
        Passage.TWICE,
    )
)


@st.composite
def wishes(draw: st.DrawFn) -> list[Wish]:
    """One to three clients; two of the same key want the same."""
    found: list[Wish] = []
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from((None, None, "a", "a", "b")))
        same = next((wish for wish in found if key is not None and wish.key == key), None)
        found.append(
            same
            or Wish(
                key=key,
                num_sequences=draw(st.sampled_from((1, 1, 2))),
                timeout_ms=draw(st.sampled_from((None, None, None, 6 * TICK_MS, 14 * TICK_MS))),
                on_disconnect=draw(st.sampled_from(tuple(DisconnectAction))),
                background=key is None and draw(st.sampled_from((False, False, False, True))),
                prefill_ms=draw(st.sampled_from((0, 0, 0, 2 * TICK_MS, 16 * TICK_MS))),
            )
        )
    return found


class LaneMachine(RuleBasedStateMachine):
    """One schedule."""

    def __init__(self, harness: LaneHarness, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._harness, self._loop = harness, loop
        self.world: LaneWorld | None = None
        self.most_faults = 0

    @initialize(
        wanted=wishes(),
        length=st.sampled_from((1, 3, 9, 20)),
        calm_rounds=st.sampled_from((0, 2, 3, 4, 5, 16)),
        most_faults=st.sampled_from((0, 1, 1, 1, 2)),
    )
    def begin(self, wanted: list[Wish], length: int, calm_rounds: int, most_faults: int) -> None:
        self.most_faults = most_faults
        self.world = LaneWorld(self._harness, self._loop, wanted, length=length, may_forget=most_faults > 0)
        for _ in range(calm_rounds):
            calm_round(self.world)

    def teardown(self) -> None:
        if self.world is not None:
            try:
                finish(self.world)
            finally:
                self.world.close()

    # --- choosing ------------------------------------------------------------------------------------------------

    @property
    def _world(self) -> LaneWorld:
        assert self.world is not None, "initialize came first"
        return self.world

    def _call(self, index: int, which: Callable[[Call], bool]) -> tuple[Process, Call] | None:
        calls = [(process, call) for process, call in self._world.calls() if which(call)]
        return calls[index % len(calls)] if calls else None

    def _leader(self, index: int) -> LeaderProcess | None:
        leaders = [leader for leader in self._world.leaders() if not leader.paused and leader.known]
        return leaders[index % len(leaders)] if leaders else None

    def _client(self, index: int) -> Client:
        return self._world.clients[index % len(self._world.clients)]

    def _may_fail(self) -> bool:
        return self.world is not None and self.world.judge.faults < self.most_faults

    # --- progress ------------------------------------------------------------------------------------------------

    @rule(ticks=st.sampled_from((1, 1, 1, 2, 3, 15)))
    def time_passes(self, ticks: int) -> None:
        for _ in range(ticks):
            self._world.tick()

    @rule(rounds=st.sampled_from((1, 1, 2, 3, 15)))
    def a_calm_while(self, rounds: int) -> None:
        for _ in range(rounds):
            calm_round(self._world)

    @rule(index=ANY, works=st.sampled_from(WORKS))
    def a_leader_works(self, index: int, works: tuple[Work, ...]) -> None:
        leader = self._leader(index)
        if leader is None:
            return
        for held in list(leader.running.values()) if Work.GENERATE in works else ():
            leader.generate(held)
        if Work.CLAIM in works and leader.may_claim:
            leader.claim()
        if Work.COMMIT in works and leader.may_commit:
            leader.commit()

    @rule(index=ANY)
    def a_process_reconnects(self, index: int) -> None:
        cut = [p for p in self._world.alive() if p.wire.server != self._world.identity]
        if cut:
            self._world.reconnect(cut[index % len(cut)])

    @rule(index=ANY, passage=PASSAGES)
    def a_call_moves(self, index: int, passage: Passage) -> None:
        world = self._world
        found = self._call(index, lambda call: bool(call.replies) if passage is Passage.READ else True)
        if found is None:
            return
        process, call = found
        match passage:
            case Passage.THROUGH:
                world.execute(process.incarnation, call)
                world.receive(process, call)
            case Passage.EXECUTED:
                world.execute(process.incarnation, call)
            case Passage.ANSWER_LOST:
                world.execute(process.incarnation, call, lose_reply=True)
            case Passage.LOST:
                world.lose(call)
            case Passage.READ:
                world.receive(process, call)
            case Passage.TWICE:
                world.duplicate(process, call)

    @rule(index=ANY, lose=st.sampled_from((False, False, False, True)))
    def a_message_is_read_or_lost(self, index: int, lose: bool) -> None:
        routers = [router for router in self._world.routers() if router.mail]
        if routers:
            self._world.message(routers[index % len(routers)], lose=lose)

    @rule(index=ANY)
    def a_dead_process_is_heard(self, index: int) -> None:
        self._world.arrive_late(index)

    # --- clients and operators -----------------------------------------------------------------------------------

    @rule(index=ANY, router=ANY)
    def a_client_comes(self, index: int, router: int) -> None:
        routers = self._world.routers()
        if routers:
            self._world.open(self._client(index), routers[router % len(routers)])

    @rule(index=ANY, for_good=st.sampled_from((False, False, True)))
    def a_client_leaves(self, index: int, for_good: bool) -> None:
        self._world.leave(self._client(index), for_good=for_good)

    @rule(index=ANY, router=ANY)
    def a_client_cancels(self, index: int, router: int) -> None:
        routers = self._world.routers()
        if routers:
            self._world.cancel(self._client(index), routers[router % len(routers)])

    @rule(slot=st.sampled_from(SLOTS))
    def a_process_starts(self, slot: str) -> None:
        self._world.start(slot)

    @rule(index=ANY)
    def a_leader_is_told_to_drain(self, index: int) -> None:
        leader = self._leader(index)
        if leader is not None and self._world.up:
            self._world.drain(leader)

    @rule(slot=st.sampled_from(SLOTS[:2]))
    def a_drained_leader_exits(self, slot: str) -> None:
        self._world.exit_drained(slot)

    @rule(index=ANY)
    def the_controller_sees_an_exit(self, index: int) -> None:
        dead = self._world.dead
        if dead and self._world.up:
            self._world.bury(dead[index % len(dead)])

    # --- failures ------------------------------------------------------------------------------------------------

    @precondition(_may_fail)
    @rule(slot=st.sampled_from(SLOTS[:4]))
    def a_process_crashes(self, slot: str) -> None:
        self._world.crash(slot)

    @precondition(_may_fail)
    @rule(slot=st.sampled_from(SLOTS[:4]))
    def a_process_stands_still(self, slot: str) -> None:
        self._world.pause(slot)

    @rule(slot=st.sampled_from(SLOTS[:4]))
    def a_process_wakes(self, slot: str) -> None:
        self._world.wake(slot)

    @precondition(_may_fail)
    @rule(lost_calls=st.integers(0, 12), outage_ms=OUTAGES_MS, keep_replies=st.booleans())
    def the_server_forgets(self, lost_calls: int, outage_ms: int, keep_replies: bool) -> None:
        self._world.rollback(lost_calls, outage_ms=outage_ms, keep_replies=keep_replies)

    @precondition(_may_fail)
    @rule(outage_ms=OUTAGES_MS, keep_replies=st.booleans())
    def the_server_is_out_of_reach(self, outage_ms: int, keep_replies: bool) -> None:
        self._world.outage(max(outage_ms, TICK_MS), keep_replies=keep_replies)

    @precondition(lambda self: self._may_fail() and self.most_faults > 1)
    @rule(outage_ms=OUTAGES_MS, keep_replies=st.booleans())
    def the_server_loses_everything(self, outage_ms: int, keep_replies: bool) -> None:
        self._world.lose_everything(outage_ms=outage_ms, keep_replies=keep_replies)
