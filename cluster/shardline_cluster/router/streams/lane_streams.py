"""The router's side of the token log's protocol for one lane, without a network and without a clock.

It is told what the queue answered and published, and answers with the calls that follow. The order of duties is the
protocol's: a new server identity is handled before anything else in a reply, and then every request that is streamed or
was seen lately is restored *before* it is attached again. Instants are milliseconds of a clock that never goes back.
"""

from collections.abc import Callable, Sequence

from shardline_cluster.errors import QueueUnavailableError, ShardlineError, UnknownRequestError
from shardline_cluster.queue.answers import Ended, Gone, OnHold, RestoreAnswer, RestoreCode, Snapshot
from shardline_cluster.queue.calls import RestoreCall
from shardline_cluster.queue.published import Published
from shardline_cluster.queue.records import DisconnectAction, RequestEnd, RequestInfo, SequenceLog
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.streams.lane_calls import AttachStream, DetachStream, LaneCall, RestoreRequest
from shardline_cluster.router.streams.open_stream import OpenStream, Taken, another_run
from shardline_cluster.router.streams.recent_requests import RecentRequests
from shardline_cluster.router.streams.stream_reader import StreamReader

Calls = list[LaneCall]


class LaneStreams:
    """Open streams, memory and knowledge of the server's identity."""

    def __init__(self, incarnation: str, terms: QueueTerms) -> None:
        self.incarnation = incarnation
        self.terms = terms
        self.identity: str | None = None
        self.generation = 0  # counts the identities that were learned
        self.recent = RecentRequests(lately_ms=terms.lately_ms, longest_pause_ms=2 * terms.sweep_ms)
        self._streams: dict[str, OpenStream] = {}
        self._last_number = 0

    @property
    def num_streams(self) -> int:
        """Requests that are read here."""
        return len(self._streams)

    def next_number(self) -> int:
        """A listener number, higher than all before."""
        self._last_number += 1
        return self._last_number

    # --- the server's identity ---

    def stale(self, identity: str, *, asked_in: int) -> bool:
        """Whether a reply is an earlier server's, read after the news of its successor: it is dropped, the call resent.

        `asked_in` is the generation in which the call was sent.
        """
        return identity != self.identity and asked_in < self.generation

    def answered(self, identity: str, now_ms: float) -> Calls:
        """Some call was answered by this server; comes before the reply itself is handled."""
        before, self.identity = self.identity, identity
        self.recent.answered(now_ms, new_identity=before != identity)
        if before == identity:
            return []
        self.generation += 1
        return [] if before is None else self._heal(now_ms)

    def _heal(self, now_ms: float) -> Calls:
        calls: Calls = []
        for stream in self._streams.values():
            calls += self._restore_stream(stream) if stream.info else self._attach(stream, now_ms)
        for request in self.recent:
            if request.info.id not in self._streams:
                calls.append(self._restore(request.info, request.logs, request.end))
        return calls

    def _restore_stream(self, stream: OpenStream) -> Calls:
        assert stream.info is not None, "a stream without a record has nothing to restore"
        stream.number = self.next_number()  # an answer to an older attach says nothing any more
        stream.attaching = stream.missed = False
        stream.shown = ()  # by another server, which may hold less or something else
        stream.restoring += 1
        return [self._restore(stream.info, stream.frozen_logs(), stream.told_end)]

    # --- submits ---

    def submitted(self, info: RequestInfo, number: int, *, wanted: bool) -> Calls:
        """A submit was answered with this record; `wanted`: its client is still there, and opens a stream at once."""
        known = self.recent.get(info.id)
        if info.id not in self._streams and (known is None or self._other_run(known.info, info)):
            self.recent.remember(info, [SequenceLog()] * info.submission.num_sequences, None)
        if wanted or info.id in self._streams or info.submission.background:
            return []
        return [DetachStream(info.id, number)]

    # --- readers come and go ---

    def open(
        self,
        request_id: str,
        tenant: str,
        cursor: bytes,
        *,
        info: RequestInfo | None,
        on_change: Callable[[], None],
        now_ms: float,
    ) -> tuple[StreamReader, Calls]:
        """A client wants the rest of a stream after a cursor. `info` is the record where a submit has just told it.

        Raises:
            UnknownRequestError: the request is another tenant's.
            QueueUnavailableError: another tenant asks for it as well, and nobody knows yet whose it is.
        """
        if request_id in self._streams:
            self._give_way(self._streams[request_id], tenant, info)
        stream = self._streams.get(request_id) or self._new_stream(request_id, tenant, info, now_ms)
        if info and stream.info and self._other_run(stream.info, info):
            stream.begin_another_run()
            stream.know(info)
        reader = StreamReader(request_id, cursor, on_change)
        stream.readers.append(reader)
        stream.check_readers(whole=False, in_hold=True)
        return reader, self._attach(stream, now_ms)

    def leave(self, reader: StreamReader) -> Calls:
        """A client is gone, or has read the end."""
        stream = self._streams.get(reader.request_id)
        if stream is None or reader not in stream.readers:
            return []
        stream.readers.remove(reader)
        return [] if stream.readers else self._close(stream)

    def stream_of(self, reader: StreamReader) -> OpenStream:
        """The stream that a reader, which has not left, reads."""
        return self._streams[reader.request_id]

    def _new_stream(self, request_id: str, tenant: str, info: RequestInfo | None, now_ms: float) -> OpenStream:
        stream = OpenStream(request_id, tenant, now_ms)
        known = self.recent.get(request_id)
        if known and known.info.submission.tenant != tenant:
            raise unknown_request(request_id)
        if known:
            stream.know(known.info, known.logs, known.end)
        elif info:
            stream.know(info)
        self._streams[request_id] = stream
        return stream

    def _give_way(self, stream: OpenStream, tenant: str, info: RequestInfo | None) -> None:
        """Ends another tenant's stream if the request turns out to be this one's: asking makes nothing his.

        Raises as `open`.
        """
        if stream.tenant == tenant:
            return
        if stream.info is not None:
            raise unknown_request(stream.request_id)
        if info is None:
            raise QueueUnavailableError(f"request {stream.request_id} is being looked for: try again")
        stream.fail_all(unknown_request(stream.request_id))
        del self._streams[stream.request_id]

    def _close(self, stream: OpenStream) -> Calls:
        del self._streams[stream.request_id]
        if stream.info is not None:
            self.recent.remember(stream.info, stream.frozen_logs(), stream.told_end)
        return [] if stream.end else [DetachStream(stream.request_id, stream.number)]

    # --- answers ---

    def attached(self, call: AttachStream, answer: Snapshot | OnHold | Gone, *, in_hold: bool, now_ms: float) -> Calls:
        """An attach was answered."""
        stream = self._streams.get(call.request_id)
        if stream is None:
            return [DetachStream(call.request_id, call.number)] if isinstance(answer, Snapshot) else []
        if call.number != stream.number:
            return []  # a newer answer is on its way
        stream.attaching = False
        stream.heard_ms = now_ms
        if isinstance(answer, Snapshot):
            if call.held and not stream.goes_on_in(answer, call.held):
                stream.shown = ()
                return self._attach(stream, now_ms)
            if stream.info and self._other_run(stream.info, answer.info):
                stream.begin_another_run()
            stream.adopt(answer, after=call.held, in_hold=in_hold)
        elif isinstance(answer, Gone) and not stream.complete:
            stream.fail_all(unknown_request(stream.request_id))
        return self._attach(stream, now_ms) if stream.missed and not stream.complete else []

    def attach_failed(self, call: AttachStream, error: ShardlineError) -> None:
        """An attach was refused for good: whoever waits for it is told."""
        stream = self._streams.get(call.request_id)
        if stream is not None and call.number == stream.number:
            stream.attaching = False
            stream.fail_all(error)

    def restored(self, call: RestoreCall, answer: RestoreAnswer | None, now_ms: float) -> Calls:
        """A restore was answered; None: it was refused for good."""
        stream = self._streams.get(call.info.id)
        if stream is None or stream.restoring == 0:
            return []
        stream.restoring -= 1
        if answer is not None and answer.code is RestoreCode.DIVERGED:
            stream.cut(answer.sequence, answer.offset)
        elif answer is not None and answer.code is RestoreCode.OTHER and not stream.complete:
            stream.fail_all(another_run(stream.request_id))
        return self._attach(stream, now_ms)

    def cancelled(self, answer: Ended, now_ms: float) -> Calls:
        """A cancel was answered with the request's end and everything before it."""
        stream = self._streams.get(answer.info.id)
        if stream is None:
            self.recent.remember(answer.info, answer.logs, answer.end)
            return []
        stream.info, stream.shown = answer.info, ()
        stream.adopt_logs(answer.logs)
        stream.end = answer.end
        stream.check_readers(whole=False, in_hold=True)
        return [] if stream.complete else self._attach(stream, now_ms)

    def forgotten(self, request_id: str) -> None:
        """The record was deleted on demand: it must not be restored."""
        self.recent.drop(request_id)

    # --- what was published ---

    def published(self, message: Published, now_ms: float) -> Calls:
        """A hint has arrived; it is used only if it is the known server's and fits what is held."""
        stream = self._streams.get(message.id)
        if stream is None:
            return []
        if message.identity != self.identity:
            return self._attach_once(stream, now_ms)
        if stream.take_in(message) is Taken.DELIVERED:
            stream.heard_ms = now_ms
            return []
        stream.missed = stream.attaching  # the log may have been read before this was published: read it once more
        return self._attach_once(stream, now_ms)

    def resubscribed(self, now_ms: float) -> Calls:
        """The subscription was confirmed anew: what was published before may be lost."""
        return self._attach_each(lambda _: True, now_ms)

    def look_after(self, now_ms: float) -> Calls:
        """Reads the log of streams to which nothing was delivered for too long. To be called every `sweep_ms`."""
        return self._attach_each(lambda stream: now_ms - stream.heard_ms >= self.terms.silence_ms, now_ms)

    def _attach_each(self, which: Callable[[OpenStream], bool], now_ms: float) -> Calls:
        calls: Calls = []
        for stream in self._streams.values():
            if not stream.complete and which(stream):
                calls += self._attach_once(stream, now_ms)
        return calls

    # --- the end of this router ---

    def shut_down(self, error: ShardlineError) -> Calls:
        """Tells every reader to go on elsewhere and lets their requests live on.

        A request that ends when its client disconnects is not detached: this router's lease runs out instead, and then
        the sweep gives the client two leases to come back.
        """
        calls: Calls = []
        for stream in self._streams.values():
            stream.fail_all(error)
            if stream.info and stream.info.submission.on_disconnect is not DisconnectAction.CANCEL and not stream.end:
                calls.append(DetachStream(stream.request_id, stream.number))
        self._streams.clear()
        return calls

    # --- pieces ---

    def _attach_once(self, stream: OpenStream, now_ms: float) -> Calls:
        return [] if stream.attaching else self._attach(stream, now_ms)

    def _attach(self, stream: OpenStream, now_ms: float) -> Calls:
        if stream.restoring:
            return []  # its answer leads here again
        stream.number = self.next_number()
        stream.attaching, stream.missed = True, False
        stream.heard_ms = now_ms
        return [AttachStream(stream.request_id, stream.tenant, stream.number, stream.shown)]

    def _restore(self, info: RequestInfo, logs: Sequence[SequenceLog], end: RequestEnd | None) -> RestoreRequest:
        return RestoreRequest(RestoreCall(incarnation=self.incarnation, info=info, logs=tuple(logs), end=end))

    def _other_run(self, one: RequestInfo, other: RequestInfo) -> bool:
        return abs(one.submitted_ms - other.submitted_ms) >= one.submission.retention_ms


def unknown_request(request_id: str) -> UnknownRequestError:
    """No such request, or another tenant's, which is the same to a client."""
    return UnknownRequestError(
        f"request {request_id} does not exist: its id is wrong, or it ended and its retention is over"
    )
