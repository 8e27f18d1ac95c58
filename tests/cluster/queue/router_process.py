"""A router and its clients in a test's hands: the real decisions of `LaneStreams`, with a wire for a network."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from shardline_cluster.errors import ShardlineError
from shardline_cluster.queue.answers import Accepted, Duplicate, Ended, OnHold
from shardline_cluster.queue.calls import Member, MemberRole
from shardline_cluster.queue.cursor import Cursor, advance, encode_cursor
from shardline_cluster.queue.log_encoding import unpack_ids
from shardline_cluster.queue.published import Published, QueueMessage
from shardline_cluster.queue.records import RequestEnd, RequestInfo, Submission
from shardline_cluster.queue.request_queue import Reply
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.streams.lane_calls import AttachStream, DetachStream, LaneCall
from shardline_cluster.router.streams.lane_streams import LaneStreams
from shardline_cluster.router.streams.stream_reader import StreamReader, StreamUpdate
from tests.cluster.queue.lane_wire import Call, Clock, Wire


@dataclass(slots=True, eq=False)
class Client:
    """Someone who wants one request's stream, over whichever router."""

    number: int
    submission: Submission  # `drawn` is the router's to fill in
    info: RequestInfo | None = None  # once it was told that its request is accepted
    got: list[list[int]] = field(default_factory=list)  # tokens of each sequence
    cursor: Cursor | None = None
    router: str | None = None  # incarnation that serves it
    reader: StreamReader | None = None
    listened_for: bool = False  # its router was told that it listens: from then on its leaving has a say
    end: RequestEnd | None = None
    failure: str = ""  # the error with which its stream broke for good
    gone: bool = False  # it will never come back
    orphaned_ms: int | None = None  # instant at which the router that listened for it died

    @property
    def over(self) -> bool:
        """Whether it wants nothing more."""
        return self.gone or bool(self.failure) or self.end is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """Who is told what clients see, and judges it."""

    accepted: Callable[[Client, RequestInfo], None]
    delivered: Callable[[Client, int, tuple[int, ...]], None]  # client, sequence, tokens
    told_end: Callable[[Client, RequestEnd], None]
    cancelled: Callable[[str, RequestEnd], None]
    failed: Callable[[Client, str], None]


class RouterProcess:
    """One incarnation of a router."""

    def __init__(self, incarnation: str, wire: Wire, *, terms: QueueTerms, witness: Witness) -> None:
        self.incarnation = incarnation
        self.wire = wire
        self.paused = False
        self.lane = LaneStreams(incarnation, terms)
        self.mail: list[Published] = []  # published, not yet read
        self.clients: list[Client] = []  # that it serves
        self._cancels_refused: list[tuple[int, Client]] = []  # by a hold, with the instant to ask again
        self._terms, self._witness = terms, witness

    @property
    def clock(self) -> Clock:
        """The time."""
        return self.wire.clock

    @property
    def known(self) -> bool:
        """Whether the queue has answered once."""
        return self.lane.identity is not None

    def streams(self, request_id: str) -> bool:
        """Whether a client reads this request here, and its newest attach was answered."""
        readers = [c.reader for c in self.clients if c.reader is not None and c.info and c.info.id == request_id]
        streams = [self.lane.stream_of(reader) for reader in readers]
        return any(s.info is not None and not s.attaching and not s.restoring for s in streams)

    # --- calls ---------------------------------------------------------------------------------------------------

    def _send(self, kind: str, about: str, send: Callable[[Any], Any], handle: Callable[[Reply[Any]], None]) -> Call:
        asked_in = self.lane.generation

        def take(reply: Reply[Any]) -> None:
            if self.lane.stale(reply.identity, asked_in=asked_in):
                self._send(kind, about, send, handle)
                return
            self._carry_out(self.lane.answered(reply.identity, self.clock.now_ms))
            handle(reply)
            self.serve()

        return self.wire.send(kind, about, send, take)

    def register(self) -> Call:
        """Sends its registration."""
        member = Member(incarnation=self.incarnation, role=MemberRole.ROUTER)
        return self._send("register", "", lambda queue: queue.register(member), lambda reply: None)

    def sweep(self) -> Call:
        """Sends a sweep."""

        def handle(_: Reply[Any]) -> None:
            self._carry_out(self.lane.look_after(self.clock.now_ms))

        return self._send("sweep", "", lambda queue: queue.sweep(self.incarnation), handle)

    def cancel(self, client: Client) -> None:
        """Sends a client's cancel; in a hold it is asked again."""
        assert client.info is not None, "only an accepted request is cancelled"
        request_id, tenant = client.info.id, client.submission.tenant

        def handle(reply: Reply[Any]) -> None:
            if isinstance(reply.value, OnHold):
                self._cancels_refused.append((self.clock.now_ms + self._terms.call_timeout_ms, client))
            elif isinstance(reply.value, Ended):
                self._carry_out(self.lane.cancelled(reply.value, self.clock.now_ms))
                self._witness.cancelled(request_id, reply.value.end)

        self._send("cancel", request_id, lambda queue: queue.cancel(request_id, tenant), handle)

    def _carry_out(self, calls: list[LaneCall]) -> None:
        for call in calls:
            if isinstance(call, AttachStream):
                self._attach(call)
            elif isinstance(call, DetachStream):
                self._detach(call)
            else:
                self._restore(call.call)

    def _attach(self, call: AttachStream) -> None:
        def handle(reply: Reply[Any]) -> None:
            self._carry_out(self.lane.attached(call, reply.value, in_hold=reply.in_hold, now_ms=self.clock.now_ms))
            if self.streams(call.request_id):
                self._note_listening(call.request_id)

        self._send(
            "attach",
            call.request_id,
            lambda queue: queue.attach(self.incarnation, call.number, call.request_id, call.tenant, held=call.held),
            handle,
        )

    def _detach(self, call: DetachStream) -> None:
        self._send(
            "detach",
            call.request_id,
            lambda queue: queue.detach(self.incarnation, call.number, call.request_id),
            lambda reply: None,
        )

    def _restore(self, call: Any) -> None:
        def handle(reply: Reply[Any]) -> None:
            self._carry_out(self.lane.restored(call, reply.value, self.clock.now_ms))

        self._send("restore", call.info.id, lambda queue: queue.restore(call), handle)

    def _note_listening(self, request_id: str) -> None:
        for client in self.clients:
            client.listened_for |= client.reader is not None and client.reader.request_id == request_id

    # --- clients -------------------------------------------------------------------------------------------------

    def open(self, client: Client) -> None:
        """A client comes: with its request, or with its cursor."""
        assert self.lane.identity is not None, "a router that knows no server takes nothing"
        client.router, client.listened_for = self.incarnation, False
        self.clients.append(client)
        if client.info is None:
            self._submit(client, self.lane.identity)
        else:
            self._read(client, None)
            self.serve()

    def _submit(self, client: Client, identity: str) -> None:
        submission, number = _drawn(client.submission, identity), self.lane.next_number()

        def handle(reply: Reply[Any]) -> None:
            assert isinstance(reply.value, Accepted | Duplicate), f"the lane takes everything, but said {reply.value}"
            info = reply.value.info
            wanted = client in self.clients and client.info is None
            self._carry_out(self.lane.submitted(info, number, wanted=wanted))
            if not wanted:
                return
            self._witness.accepted(client, info)
            client.listened_for = isinstance(reply.value, Accepted)
            if submission.background:
                self.clients.remove(client)
                client.router = None
            else:
                self._read(client, info)

        self._send("submit", submission.id, lambda queue: queue.submit(self.incarnation, number, submission), handle)

    def _read(self, client: Client, info: RequestInfo | None) -> None:
        assert client.info is not None, "its request was accepted"
        cursor = encode_cursor(client.cursor) if client.cursor else b""
        client.reader, calls = self.lane.open(
            client.info.id,
            client.submission.tenant,
            cursor,
            info=info,
            on_change=lambda: None,
            now_ms=self.clock.now_ms,
        )
        self._carry_out(calls)

    def leave(self, client: Client) -> None:
        """A client goes away."""
        self.clients.remove(client)
        client.router = None
        if client.reader is not None:
            self._carry_out(self.lane.leave(client.reader))
            client.reader = None

    def serve(self) -> None:
        """Delivers to each client what there is for it."""
        for client in [c for c in self.clients if c.reader is not None]:
            self._serve(client, client.reader)

    def _serve(self, client: Client, reader: StreamReader | None) -> None:
        assert reader is not None, "only readers are served"
        try:
            while not (update := self.lane.stream_of(reader).take(reader)).empty:
                self._deliver(client, update)
                if update.end is not None:
                    self.leave(client)
                    self._witness.told_end(client, update.end)
                    return
        except ShardlineError as error:
            self.leave(client)
            self._witness.failed(client, str(error))

    def _deliver(self, client: Client, update: StreamUpdate) -> None:
        num_sequences = client.submission.num_sequences
        client.cursor = client.cursor or Cursor.start(num_sequences)
        for part in update.sequences:
            self._witness.delivered(client, part.sequence, unpack_ids(part.ids))
            client.cursor = advance(client.cursor, part.sequence, part.ids, closed=part.finish is not None)

    # --- messages and time ---------------------------------------------------------------------------------------

    def post(self, messages: list[QueueMessage]) -> None:
        """Something was published for this router; it reads it later."""
        self.mail += [m for m in messages if isinstance(m, Published)]

    def read_message(self) -> None:
        """Reads the oldest message."""
        self._carry_out(self.lane.published(self.mail.pop(0), self.clock.now_ms))
        self.serve()

    def reconnect(self, server: str) -> None:
        """New connections, for calls and for messages."""
        self.wire.reconnect(server)
        self._carry_out(self.lane.resubscribed(self.clock.now_ms))

    def cancel_again(self) -> None:
        """Asks again for the cancels that a hold refused."""
        due = [client for at_ms, client in self._cancels_refused if at_ms <= self.clock.now_ms]
        self._cancels_refused = [entry for entry in self._cancels_refused if entry[1] not in due]
        for client in due:
            self.cancel(client)


def _drawn(submission: Submission, identity: str) -> Submission:
    return replace(submission, drawn=identity)
