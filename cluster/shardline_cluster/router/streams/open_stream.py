"""A request that clients of this router read right now: its logs so far, its end, and its readers.

Pure: it is told what the server showed and says what follows for its readers. When to ask the server is decided by
`LaneStreams`.
"""

from collections.abc import Sequence
from enum import Enum

from shardline_cluster.errors import DataLossError, ShardlineError
from shardline_cluster.queue.answers import Snapshot
from shardline_cluster.queue.cursor import Cursor
from shardline_cluster.queue.published import Published
from shardline_cluster.queue.records import RequestEnd, RequestInfo, SequenceFinish, SequenceLog
from shardline_cluster.router.streams.held_log import Fit, HeldLog
from shardline_cluster.router.streams.stream_reader import SequenceUpdate, StreamReader, StreamUpdate

MOST_TOKENS_A_TAKE = 4096  # of one sequence: keeps a message far below gRPC's limit, log-probabilities included


class Taken(Enum):
    """What became of a published message."""

    DELIVERED = "delivered"
    ASK = "ask"  # something was missed, or differs: the log must be read


class OpenStream:
    """One request and everyone who reads it here."""

    def __init__(self, request_id: str, tenant: str, now_ms: float) -> None:
        self.request_id = request_id
        self.tenant = tenant
        self.info: RequestInfo | None = None  # None until the server has told it
        self.logs: list[HeldLog] = []
        self.end: RequestEnd | None = None
        self.position: int | None = None
        self.epoch = 0
        self.readers: list[StreamReader] = []
        self.number = 0  # of the latest attach
        self.attaching = False  # the attach of that number has no answer yet
        self.missed = False  # something was published meanwhile that could not be used
        self.shown: tuple[int, ...] = ()  # tokens of each sequence that the present server has shown: not read again
        self.restoring = 0  # restores without an answer; each leads to an attach
        self.heard_ms = now_ms  # when something was last delivered

    @property
    def complete(self) -> bool:
        """Whether everything up to the end is held: nothing more is needed of the server."""
        if self.end is None or not self.logs:
            return False
        return all(log.num_tokens >= offset for log, offset in zip(self.logs, self.end.offsets, strict=True))

    @property
    def told_end(self) -> RequestEnd | None:
        """The end, as far as a client may have heard of it and a server may be told it: with every id before it."""
        return self.end if self.complete else None

    def know(self, info: RequestInfo, logs: Sequence[SequenceLog] = (), end: RequestEnd | None = None) -> None:
        """Begins with what the router knows of the request already."""
        self.info = info
        self.end = end
        self.logs = [HeldLog(log) for log in logs] or self._no_logs(info)

    def frozen_logs(self) -> tuple[SequenceLog, ...]:
        """The logs as a restore sends them."""
        return tuple(log.as_log() for log in self.logs)

    # --- what the server showed ---

    def begin_another_run(self) -> None:
        """The id now names another run of the request: whoever has tokens of this one cannot go on."""
        for reader in self.readers:
            if reader.verified and any(reader.taken):
                reader.fail(another_run(self.request_id))
        self.logs, self.end, self.shown = [], None, ()

    def goes_on_in(self, snapshot: Snapshot, held: Sequence[int]) -> bool:
        """Whether a reading that left `held` out goes on where it was: in the same record, whose logs only grow."""
        if self.info is None or self.info.submitted_ms != snapshot.info.submitted_ms:
            return False
        return self.shown == held

    def adopt(self, snapshot: Snapshot, *, in_hold: bool, after: Sequence[int] = ()) -> None:
        """Takes over what the server holds; what is held here beyond it stays. `after`: tokens that it left out."""
        logs = [self._whole(sequence, offset, snapshot.logs[sequence]) for sequence, offset in enumerate(after)]
        self.info = snapshot.info
        # A claim may be published before the answer that was read earlier is here: its place in the queue is history.
        self.position = snapshot.position if snapshot.epoch >= self.epoch else None
        self.epoch = snapshot.epoch
        self.adopt_logs(logs or snapshot.logs)
        self.shown = tuple(log.num_tokens for log in logs or snapshot.logs)
        self.end = snapshot.end or self.end
        self.check_readers(whole=True, in_hold=in_hold)

    def _whole(self, sequence: int, offset: int, rest: SequenceLog) -> SequenceLog:
        held = self.logs[sequence]
        return SequenceLog(held.ids(0, offset) + rest.ids, held.logprobs(0, offset) + rest.logprobs, rest.finish)

    def adopt_logs(self, logs: Sequence[SequenceLog]) -> None:
        """Takes over the server's logs; readers that have something else fail."""
        self.logs = self.logs or [HeldLog() for _ in logs]
        for sequence, (held, log) in enumerate(zip(self.logs, logs, strict=True)):
            differs_at = held.adopt(log)
            if differs_at is not None:
                self._fail_beyond(sequence, differs_at)

    def cut(self, sequence: int, offset: int) -> None:
        """The server's log differs from `offset` on: forgets what is held from there."""
        self._fail_beyond(sequence, offset)
        self.shown = ()
        if sequence < len(self.logs):
            self.logs[sequence].cut(offset)

    def take_in(self, message: Published) -> Taken:
        """A published message of the server that the router knows."""
        if self.info is None:
            return Taken.ASK
        self.epoch = max(self.epoch, message.epoch)
        self.position = None if message.epoch else self.position
        for run in message.sequences:
            if self.logs[run.sequence].append(run) is not Fit.FITS:
                return Taken.ASK
        if message.end is not None:
            if any(log.num_tokens < o for log, o in zip(self.logs, message.end.offsets, strict=True)):
                return Taken.ASK
            self.end = message.end
        self.check_readers(whole=False, in_hold=True)
        return Taken.DELIVERED

    # --- its readers ---

    def check_readers(self, *, whole: bool, in_hold: bool) -> None:
        """Compares cursors with what is held. `whole`: the server has just shown everything that it has."""
        for reader in self.readers:
            if not reader.verified:
                self._verify(reader, whole=whole, in_hold=in_hold)
            elif whole and not in_hold and self.end is not None and not self.complete:
                reader.fail(DataLossError(f"the log of request {self.request_id} ends before the end that was told"))
            reader.on_change()

    def fail_all(self, error: ShardlineError) -> None:
        """Ends every reader with this error."""
        for reader in self.readers:
            reader.fail(error)

    def take(self, reader: StreamReader) -> StreamUpdate:
        """What this reader has not had yet, and marks it as taken.

        Raises:
            ShardlineError: the reader's failure.
        """
        if reader.failure is not None:
            raise reader.failure
        if not reader.verified:
            return self._progress(reader)
        taken = [self._take_sequence(reader, sequence) for sequence in range(len(self.logs))]
        progress = self._progress(reader)
        end = self.told_end if self._all_taken(reader) else None
        reader.ended = end is not None
        return StreamUpdate(progress.position, progress.epoch, tuple(filter(None, taken)), end)

    def _progress(self, reader: StreamReader) -> StreamUpdate:
        epoch = self.epoch if self.epoch > reader.epoch else None
        position = self.position if self.position != reader.position else None
        reader.epoch, reader.position = max(self.epoch, reader.epoch), self.position
        return StreamUpdate(position, epoch)

    def _take_sequence(self, reader: StreamReader, sequence: int) -> SequenceUpdate | None:
        log, begin = self.logs[sequence], reader.taken[sequence]
        limit = self._limit(sequence)
        if reader.closed[sequence]:
            if limit > begin:
                raise _went_on(self.request_id, sequence, begin)
            return None
        end = min(limit, begin + MOST_TOKENS_A_TAKE)
        finish = self._finish(sequence) if end >= limit else None
        if end <= begin and finish is None:
            return None
        reader.taken[sequence], reader.closed[sequence] = max(begin, end), finish is not None
        return SequenceUpdate(sequence, begin, log.ids(begin, end), log.logprobs(begin, end), finish)

    def _limit(self, sequence: int) -> int:
        held = self.logs[sequence].num_tokens
        return held if self.end is None else min(held, self.end.offsets[sequence])

    def _finish(self, sequence: int) -> SequenceFinish | None:
        if self.end is not None:
            return self.end.finishes[sequence]
        return self.logs[sequence].finish

    def _all_taken(self, reader: StreamReader) -> bool:
        return all(taken >= self._limit(s) for s, taken in enumerate(reader.taken))

    def _verify(self, reader: StreamReader, *, whole: bool, in_hold: bool) -> None:
        if self.info is None or reader.failure is not None:
            return
        reader.open_cursor(len(self.logs))
        if reader.cursor is None:
            return
        reaches = [self._reaches(reader.cursor, s) for s in range(len(self.logs))]
        for sequence, reached in enumerate(reaches):
            if reached is False:
                reader.fail(_diverged(self.request_id, sequence, reader.taken[sequence]))
            elif reached is None and whole and self._never(sequence, in_hold=in_hold):
                reader.fail(_past_the_log(self.request_id, sequence, reader.taken[sequence], self._limit(sequence)))
        reader.verified = all(reaches)

    def _reaches(self, cursor: Cursor, sequence: int) -> bool | None:
        """Whether the log continues the cursor; None: it is not that long yet."""
        place = cursor.sequences[sequence]
        if place.offset > self.logs[sequence].num_tokens:
            return None
        return place.continues(self.logs[sequence].ids(0, place.offset))

    def _never(self, sequence: int, *, in_hold: bool) -> bool:
        if self.end is None:
            return False
        return not in_hold or self.logs[sequence].num_tokens >= self.end.offsets[sequence]

    def _fail_beyond(self, sequence: int, offset: int) -> None:
        for reader in self.readers:
            if reader.verified and reader.taken[sequence] > offset:
                reader.fail(_diverged(self.request_id, sequence, offset))

    def _no_logs(self, info: RequestInfo) -> list[HeldLog]:
        return [HeldLog() for _ in range(info.submission.num_sequences)]


def another_run(request_id: str) -> DataLossError:
    """The id names another run now."""
    return DataLossError(
        f"request {request_id} ran out and was submitted again under the same key: "
        "this is another run of it, read it from the first token"
    )


def _diverged(request_id: str, sequence: int, offset: int) -> DataLossError:
    return DataLossError(
        f"request {request_id}, sequence {sequence}: what was delivered and what the log holds differ before or at "
        f"token {offset}; read it again from the first token"
    )


def _past_the_log(request_id: str, sequence: int, offset: int, length: int) -> DataLossError:
    return DataLossError(
        f"request {request_id}, sequence {sequence}: {offset} tokens were delivered, but the log ended at token "
        f"{length}; the rest was lost by the queue's server"
    )


def _went_on(request_id: str, sequence: int, offset: int) -> DataLossError:
    return DataLossError(
        f"request {request_id}, sequence {sequence}: its finish was told at token {offset}, but the log goes on"
    )
