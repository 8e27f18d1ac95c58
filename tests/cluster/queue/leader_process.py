"""A leader in a test's hands: the real decisions of `HeldRequests`, a wire for a network, counters for an engine.

Tokens are fresh numbers that know their parent, so that mixed text is always visible. The length of a sequence depends
on the grant: two owners never agree about a finish by chance.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from shardline_cluster.queue.calls import CommitCall, Member, MemberRole, RestoreCall
from shardline_cluster.queue.log_encoding import pack_ids, unpack_ids
from shardline_cluster.queue.records import Grant, SequenceFinish
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.replica.changes import Changes
from shardline_cluster.replica.held_request import HeldRequest
from shardline_cluster.replica.held_requests import HeldRequests
from tests.cluster.queue.lane_wire import Call, Clock, Wire

SLOTS = 3  # sequences that one leader runs at once
FREE_TOKENS = 10_000
LENGTH_REACHED = SequenceFinish("length")


@dataclass(slots=True)
class Tokens:
    """Every token that was ever generated, with the one that it was generated after."""

    parents: dict[int, int | str] = field(default_factory=dict)  # a first token's parent is REQUEST/SEQUENCE

    def after(self, parent: int | str) -> int:
        """A token that was never seen before."""
        token = len(self.parents) + 1
        self.parents[token] = parent
        return token

    def fits(self, ids: tuple[int, ...], begin: int, root: str) -> bool:
        """Whether all tokens from `begin` on were generated after the one before them."""
        return all(self.parents[ids[k]] == (ids[k - 1] if k else root) for k in range(begin, len(ids)))


class LeaderProcess:
    """One incarnation of a leader."""

    def __init__(
        self,
        incarnation: str,
        wire: Wire,
        *,
        terms: QueueTerms,
        tokens: Tokens,
        length: int,
        prefill_ms: Callable[[str], int],
    ) -> None:
        """`length`: tokens of a sequence, a few more for some; `prefill_ms` by request."""
        self.incarnation = incarnation
        self.wire = wire
        self.paused = False
        self.held = HeldRequests(incarnation=incarnation, terms=terms)
        self.running: dict[str, HeldRequest] = {}  # by the grant's name, as in an engine
        self._ready_ms: dict[str, int] = {}
        self._terms, self._tokens, self._length, self._prefill_ms = terms, tokens, length, prefill_ms
        self._num_claims = 0
        self._registered_with: str | None = None
        self._last_commit_ms = 0
        self._eager = False  # it was reconnected, or has learned of another server

    @property
    def clock(self) -> Clock:
        """The time."""
        return self.wire.clock

    @property
    def known(self) -> bool:
        """Whether the queue has answered once."""
        return self._registered_with is not None

    # --- calls ---------------------------------------------------------------------------------------------------

    def register(self) -> Call:
        """Sends its registration."""
        member = Member(incarnation=self.incarnation, role=MemberRole.LEADER)

        def take(reply: object) -> None:
            self._registered_with = getattr(reply, "identity", None)
            self._eager = True
            self.held.answered(str(self._registered_with), self.clock.now_s)

        return self.wire.send("register", "", lambda queue: queue.register(member), take)

    @property
    def free_slots(self) -> int:
        """Sequences that it has room for."""
        return SLOTS - sum(len(held.sequences) for held in self.running.values())

    @property
    def may_claim(self) -> bool:
        """Whether its shell would claim now."""
        return self.known and not (self.wire.pending("claim") or self.held.draining) and self.free_slots > 0

    def claim(self) -> Call:
        """Sends a claim."""
        self._num_claims += 1
        nonce = f"{self.incarnation:>6}"[-6:].encode() + self._num_claims.to_bytes(2, "little")[::-1]
        call = self.held.next_claim(free_slots=self.free_slots, free_tokens=FREE_TOKENS, nonce=nonce)
        return self.wire.send(
            "claim",
            "",
            lambda queue: queue.claim(call),
            lambda reply: self._apply(self.held.claimed(reply, self.clock.now_s)),
        )

    @property
    def may_commit(self) -> bool:
        """Whether its shell would commit now, were there anything to say."""
        return self.known and not self.wire.pending("commit")

    @property
    def must_commit(self) -> bool:
        """Whether a healthy leader has committed by now, tokens or not."""
        overdue = self.clock.now_ms - self._last_commit_ms >= self._terms.heartbeat_ms
        return self.may_commit and (overdue or self._eager)

    def commit(self) -> Call:
        """Sends everything that the log lacks."""
        self._last_commit_ms, self._eager = self.clock.now_ms, False
        call = self.held.next_commit(self.clock.now_s)
        return self.wire.send(
            "commit", "", lambda queue: queue.commit(call), lambda reply: self._committed(call, reply)
        )

    def _committed(self, call: CommitCall, reply: object) -> None:
        assert hasattr(reply, "identity"), "a reply"
        self._apply(self.held.committed(call, reply, self.clock.now_s))  # type: ignore[arg-type]  # a commit's own
        if self.held.draining and not self.held.has_unsaid(self.clock.now_s):
            self.held.release_all()
            self.running = {key: held for key, held in self.running.items() if self.held.get(key) is held}
        if reply.identity != self._registered_with:
            self.register()
            self._eager = True

    def errands(self) -> None:
        """Sends restores and releases that were decided."""
        for restore in self.held.take_restores():
            self._restore(restore)
        grants = self.held.take_releases()
        if grants:
            self._release(grants)

    def _restore(self, call: RestoreCall) -> None:
        self.wire.send(
            "restore",
            call.info.id,
            lambda queue: queue.restore(call),
            lambda reply: self._apply(self.held.restored(call, reply, self.clock.now_s)),
        )

    def _release(self, grants: list[tuple[str, Grant]]) -> None:
        self.wire.send(
            "release",
            grants[0][0],
            lambda queue: queue.release(self.incarnation, grants),
            lambda reply: self.held.released(grants, reply.identity, self.clock.now_s),
        )

    def reconnect(self, server: str) -> None:
        """A new connection; whoever answers now may be another server."""
        self.wire.reconnect(server)
        self.held.hurry()
        self._eager = True

    # --- the engine ----------------------------------------------------------------------------------------------

    def _apply(self, changes: Changes) -> None:
        for dropped in changes.dropped:
            self.running.pop(dropped.request.key, None)
        for held in changes.started:
            self.running[held.key] = held
            self._ready_ms[held.key] = self.clock.now_ms + self._prefill_ms(held.id)

    def generate(self, held: HeldRequest) -> None:
        """One step of one request: a token for each sequence that is not over."""
        if self._ready_ms[held.key] <= self.clock.now_ms:
            for sequence in range(len(held.sequences)):
                self._step(held, sequence)

    def _step(self, held: HeldRequest, sequence: int) -> None:
        if held.sequences[sequence].finish is not None:
            return
        ids = unpack_ids(bytes(held.sequences[sequence].ids))
        length = self._length + sequence + held.grant.epoch % 2
        new = () if len(ids) >= length else (self._tokens.after(ids[-1] if ids else f"{held.id}/{sequence}"),)
        finish = LENGTH_REACHED if len(ids) + len(new) >= length else None
        self.held.record(held.key, sequence, ids=pack_ids(new), finish=finish)
