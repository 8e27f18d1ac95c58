"""A whole small cluster in a test's hands: leaders, routers, clients, one lane, and everything that can fail.

Events are methods; each does nothing where it is not possible, so that any sequence of events is a schedule. Time
stands between two ticks. A healthy process gets a call through within one call time-out, as the protocol assumes.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from shardline_cluster.queue.answers import Snapshot
from shardline_cluster.queue.calls import DeadMember
from shardline_cluster.queue.records import DisconnectAction
from shardline_cluster.queue.request_queue import Reply
from tests.cluster.queue.lane_calls import TENANT, a_submission
from tests.cluster.queue.lane_harness import LaneHarness
from tests.cluster.queue.lane_judge import LaneJudge, Seen
from tests.cluster.queue.lane_wire import Call, Clock, Wire
from tests.cluster.queue.leader_process import LeaderProcess, Tokens
from tests.cluster.queue.router_process import Client, RouterProcess, Witness

T = TypeVar("T")
Process = LeaderProcess | RouterProcess

TICK_MS = 500
MAX_TOKENS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a client wants."""

    key: str | None = None
    num_sequences: int = 1
    timeout_ms: int | None = None
    on_disconnect: DisconnectAction = DisconnectAction.CONTINUE
    background: bool = False
    prefill_ms: int = 0


@dataclass(frozen=True, slots=True)
class Saved:
    """A state that a fail-over may go back to."""

    at_ms: int
    snapshot: object
    seen: Seen


class LaneWorld:
    """Two leaders and two routers to begin with; more may be started."""

    def __init__(
        self,
        harness: LaneHarness,
        loop: asyncio.AbstractEventLoop,
        wishes: list[Wish],
        *,
        length: int,
        may_forget: bool,
    ) -> None:
        """`length`: tokens of a sequence; `may_forget`: states are kept to roll back to, which takes time."""
        self._harness, self._loop, self._may_forget = harness, loop, may_forget
        self.terms = harness.terms
        self.run(harness.reset())
        self._queue = harness.queue()
        self.identity = self.run(harness.identity())
        self.clock = Clock(self.run(harness.now_ms()))
        self.up, self.up_at_ms = True, 0
        self.tokens = Tokens()
        self.length = length
        self.processes: dict[str, Process | None] = {}
        self.clients: list[Client] = []
        self.orphans: list[tuple[str, Call]] = []  # calls of dead processes that may yet arrive, with their sender
        self.dead: list[DeadMember] = []  # leaders that were seen to exit
        self.judge = LaneJudge(self.terms, self.tokens, self.processes, self.clients)
        self._prefill_ms: dict[str, int] = {}
        self._ids: set[str] = set()
        self._saved: list[Saved] = []
        self._num_started = 0
        self.num_ticks = 0
        for wish in wishes:
            self._invite(wish)
        for slot in ("L0", "L1", "R0", "R1"):
            self.start(slot)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs the harness's and the queue's own work to its end."""
        return self._loop.run_until_complete(work)

    def close(self) -> None:
        """Gives subscriptions back."""
        self.run(self._harness.reset())

    # --- who is there --------------------------------------------------------------------------------------------

    def _invite(self, wish: Wish) -> None:
        number = len(self.clients)
        submission = replace(
            a_submission("", number),
            id=f"lane-{wish.key or number}",
            idempotency_key=wish.key,
            num_sequences=wish.num_sequences,
            max_tokens=MAX_TOKENS,
            timeout_ms=wish.timeout_ms,
            on_disconnect=wish.on_disconnect,
            grace_ms=8 * TICK_MS,
            background=wish.background,
        )
        self._prefill_ms[submission.id] = wish.prefill_ms
        self.clients.append(Client(number, submission))

    def start(self, slot: str) -> None:
        """A new incarnation in a slot; it has registered when it can do anything else."""
        if self.processes.get(slot) is not None or not self.up:
            return
        self._num_started += 1
        incarnation = f"{slot}.{self._num_started}"
        wire = Wire(self.identity, self.clock)
        process: Process
        if slot[0] == "L":
            process = LeaderProcess(
                incarnation,
                wire,
                terms=self.terms,
                tokens=self.tokens,
                length=self.length,
                prefill_ms=lambda request_id: self._prefill_ms.get(request_id.partition("~")[0], 0),
            )
        else:
            judge = self.judge
            witness = Witness(
                accepted=judge.accept,
                delivered=judge.deliver,
                told_end=judge.tell_end,
                cancelled=judge.tell,
                failed=judge.fail,
            )
            process = RouterProcess(incarnation, wire, terms=self.terms, witness=witness)
            self.run(self._harness.watch(incarnation))
        self.processes[slot] = process
        self.push(process, process.register())

    def leaders(self) -> list[LeaderProcess]:
        """Leaders that run or are paused."""
        return [p for p in self.processes.values() if isinstance(p, LeaderProcess)]

    def routers(self) -> list[RouterProcess]:
        """Routers that run or are paused."""
        return [p for p in self.processes.values() if isinstance(p, RouterProcess)]

    def alive(self) -> list[Process]:
        """Processes that run or are paused."""
        return [*self.leaders(), *self.routers()]

    # --- the network ---------------------------------------------------------------------------------------------

    def calls(self) -> list[tuple[Process, Call]]:
        """Every call that can be moved."""
        return [(p, c) for p in self.alive() for c in p.wire.calls if c.copies or c.replies or c.waiting]

    def _reaches(self, call: Call) -> bool:
        """Whether a copy of a call can arrive: a dead connection reaches no new server."""
        return self.up and call.copies > 0 and call.server == self.identity

    def execute(self, sender: str, call: Call, *, lose_reply: bool = False) -> None:
        """A copy of a call arrives and is executed."""
        if not self._reaches(call):
            return
        call.copies -= 1
        reply = self._executed(sender, call)
        if call.waiting and not lose_reply:
            call.replies.append(reply)

    def _executed(self, sender: str, call: Call) -> Reply[Any]:
        if self._may_forget:
            self._saved.append(self.save())
        reply, shots = self.run(self._execute_and_look(call))
        self.judge.judge(call.kind, sender, reply, shots, self.clock.now_ms)
        return reply

    async def _execute_and_look(self, call: Call) -> tuple[Reply[Any], dict[str, Snapshot]]:
        reply = await call.send(self._queue)
        for router in self.routers():
            router.post(await self._harness.published(router.incarnation))
        shots: dict[str, Snapshot] = {}
        for request_id in sorted(self._ids):
            shot = (await self._queue.look(request_id, TENANT)).value
            if isinstance(shot, Snapshot):
                shots[request_id] = shot
        return reply, shots

    def judge_usage(self) -> None:
        """Compares what the lane has counted with the ends that it holds."""
        self.judge.judge_usage(self.run(self._queue.usage()).value)

    def receive(self, process: Process, call: Call) -> None:
        """A process reads a reply."""
        if not call.replies or process.paused:
            return
        process.wire.receive(call)
        if isinstance(process, LeaderProcess):
            process.errands()

    def lose(self, call: Call) -> None:
        """A copy of a call is lost on its way."""
        call.copies = max(0, call.copies - 1)

    def duplicate(self, process: Process, call: Call) -> None:
        """A call is sent once more, unchanged: its process lost patience."""
        if call.waiting and call.copies < 2 and process.wire.server == self.identity:
            call.copies += 1

    def push(self, process: Process, call: Call | None) -> None:
        """A call gets through: executed and answered."""
        if call is None or not self.up or process.wire.server != self.identity:
            return
        if not call.replies:
            call.copies = max(1, call.copies)
            self.execute(process.incarnation, call)
        self.receive(process, call)

    def arrive_late(self, index: int) -> None:
        """A call of a process that is dead arrives."""
        orphans = [(sender, call) for sender, call in self.orphans if self._reaches(call)]
        if orphans:
            sender, call = orphans[index % len(orphans)]
            self.execute(sender, call)

    def message(self, router: RouterProcess, *, lose: bool = False) -> None:
        """A router reads the oldest message, or never gets it."""
        if router.mail and lose:
            router.mail.pop(0)
        elif router.mail and not router.paused:
            router.read_message()

    # --- clients -------------------------------------------------------------------------------------------------

    def open(self, client: Client, router: RouterProcess) -> None:
        """A client comes to a router, for the first time or again."""
        if client.over or client.router is not None or router.paused or not router.known:
            return
        if client.info is not None and client.submission.background:
            return
        if client.info is None and client.submission.idempotency_key is None:
            number = sum(i.startswith(f"{client.submission.id.partition('~')[0]}~") for i in self._ids)
            client.submission = replace(client.submission, id=f"{client.submission.id.partition('~')[0]}~{number}")
        self._ids.add(client.submission.id)
        client.orphaned_ms = None
        router.open(client)

    def leave(self, client: Client, *, for_good: bool = False) -> None:
        """A client disconnects."""
        router = self._router_of(client)
        if router is None or router.paused or client.over:
            return
        router.leave(client)
        client.gone = for_good and client.info is not None

    def cancel(self, client: Client, router: RouterProcess) -> None:
        """A client asks a router to cancel its request."""
        if client.info is None or client.over or router.paused or not router.known:
            return
        if not router.wire.pending("cancel", client.info.id):
            self.judge.asked_to_cancel.add(client.info.id)
            router.cancel(client)

    def _router_of(self, client: Client) -> RouterProcess | None:
        return next((r for r in self.routers() if r.incarnation == client.router), None)

    # --- what fails ----------------------------------------------------------------------------------------------

    def crash(self, slot: str) -> None:
        """A process dies."""
        process = self.processes.get(slot)
        if process is not None:
            self.judge.faults += 1
            self.judge.unwell.add(process.incarnation)
            self._remove(slot, process, had_drained=False)

    def exit_drained(self, slot: str) -> None:
        """A leader that has handed everything back exits."""
        process = self.processes.get(slot)
        if not isinstance(process, LeaderProcess) or process.paused or process.wire.unanswered():
            return
        if process.held.draining and process.held.owes_nothing:
            self._remove(slot, process, had_drained=True)

    def _remove(self, slot: str, process: Process, *, had_drained: bool) -> None:
        self.processes[slot] = None
        self.orphans += [(process.incarnation, call) for call in process.wire.calls if call.copies]
        for call in process.wire.calls:
            call.waiting = False
        if isinstance(process, LeaderProcess):
            self.dead.append(DeadMember(process.incarnation, had_drained))
            return
        for client in process.clients:
            client.router, client.reader = None, None
            client.orphaned_ms = self.clock.now_ms if client.listened_for else None
        process.clients.clear()

    def pause(self, slot: str) -> None:
        """A process stands still: a zombie, once it wakes."""
        process = self.processes.get(slot)
        if process is not None and not process.paused:
            self.judge.faults += 1
            self.judge.unwell.add(process.incarnation)
            process.paused = True

    def wake(self, slot: str) -> None:
        """A paused process goes on."""
        process = self.processes.get(slot)
        if process is not None:
            process.paused = False

    def rollback(self, lost_calls: int, *, outage_ms: int = 0, keep_replies: bool = False) -> None:
        """Another server takes over that lacks the last calls, though none older than what durability can lose."""
        since_ms = self.clock.now_ms - self.terms.lost_window_ms
        states = [s for s in self._saved if s.at_ms >= since_ms]
        saved = states[-min(lost_calls, len(states))] if lost_calls and states else self.save()
        self.go_back(saved, outage_ms=outage_ms, keep_replies=keep_replies)

    def save(self) -> Saved:
        """The lane as it is now."""
        return Saved(self.clock.now_ms, self.run(self._harness.snapshot()), self.judge.seen.copy())

    def go_back(self, saved: Saved, *, outage_ms: int = 0, keep_replies: bool = False) -> None:
        """Another server takes over that knows nothing since `saved`."""
        self.judge.faults += 1
        self.judge.seen = saved.seen.copy()
        self._replace_server(saved.snapshot, outage_ms, keep_replies=keep_replies)

    def lose_everything(self, *, outage_ms: int = 0, keep_replies: bool = False) -> None:
        """Another server takes over that knows nothing: more than one failure forgets."""
        self.judge.faults += 2
        self.judge.seen = Seen()
        self._replace_server(None, outage_ms, keep_replies=keep_replies)

    def _replace_server(self, snapshot: object | None, outage_ms: int, *, keep_replies: bool) -> None:
        self.identity = self.run(self._harness.rollback(snapshot))
        self._saved.clear()
        self._cut(outage_ms, keep_replies=keep_replies)

    def outage(self, outage_ms: int, *, keep_replies: bool = False) -> None:
        """The server is out of reach for a while and forgets nothing."""
        self.judge.faults += 1
        self._cut(outage_ms, keep_replies=keep_replies)

    def _cut(self, outage_ms: int, *, keep_replies: bool) -> None:
        self.orphans.clear()
        for process in self.alive():
            process.wire.cut(keep_replies=keep_replies)
            if isinstance(process, RouterProcess) and not keep_replies:
                process.mail.clear()
        self.up, self.up_at_ms = outage_ms == 0, self.clock.now_ms + outage_ms

    # --- the controller ------------------------------------------------------------------------------------------

    def _controller_calls(self, kind: str, send: Any) -> None:
        call = Call(kind, "", send, lambda reply: None, self.identity, self.clock.now_ms, waiting=False)
        self.execute("controller", call)

    def drain(self, leader: LeaderProcess) -> None:
        """The controller tells a leader to drain."""
        self._controller_calls("drain", lambda queue: queue.drain(leader.incarnation))

    def bury(self, dead: DeadMember) -> None:
        """The controller tells that it saw a leader exit."""
        self._controller_calls("sweep", lambda queue: queue.sweep(None, [dead]))

    # --- time ----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Time passes; healthy processes do what is due."""
        self.up = self.up or self.clock.now_ms >= self.up_at_ms
        for process in self.alive():
            if not process.paused and self.up and self.clock.now_ms > self.up_at_ms:
                self._do_duties(process)
        self.num_ticks += 1
        self.clock.now_ms += TICK_MS
        self.run(self._harness.advance(TICK_MS))

    def reconnect(self, process: Process) -> None:
        """A process notices that its server is gone, and finds the one that took over."""
        if self.up and not process.paused and process.wire.server != self.identity:
            process.reconnect(self.identity)

    def _do_duties(self, process: Process) -> None:
        self.reconnect(process)
        for call in process.wire.unanswered():
            if call.waiting and self.clock.now_ms - call.sent_ms >= self.terms.call_timeout_ms:
                self.push(process, call)
        if isinstance(process, LeaderProcess):
            if process.must_commit:
                self.push(process, process.commit())
        elif process.known:
            self.push(process, process.sweep())
            process.cancel_again()
