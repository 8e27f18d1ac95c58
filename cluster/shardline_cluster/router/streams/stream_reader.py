"""One client's place in a stream: what it has, whether that agrees with the log, what it gets next.

A reader takes at its own pace from what its stream holds; nothing is queued for it. Readers of one stream do not know
each other.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from shardline_cluster.errors import InvalidRequestError, ShardlineError
from shardline_cluster.queue.cursor import Cursor, decode_cursor
from shardline_cluster.queue.records import RequestEnd, SequenceFinish


@dataclass(frozen=True, slots=True)
class SequenceUpdate:
    """Further tokens of one sequence, or its finish, or both."""

    sequence: int
    offset: int  # tokens before these
    ids: bytes  # packed
    logprobs: bytes  # packed; empty where none are kept
    finish: SequenceFinish | None


@dataclass(frozen=True, slots=True)
class StreamUpdate:
    """What a reader has not had yet; fields that have nothing new are empty."""

    position: int | None = None
    epoch: int | None = None
    sequences: tuple[SequenceUpdate, ...] = ()
    end: RequestEnd | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return self == StreamUpdate()


@dataclass(slots=True, eq=False)
class StreamReader:
    """A reader of one stream. `on_change` is called when a `take` may bring something."""

    request_id: str
    shown: bytes  # the cursor as the client sent it; it can be opened when the number of sequences is known
    on_change: Callable[[], None]
    cursor: Cursor | None = None  # where it began
    verified: bool = False  # the log continues what the client has
    failure: ShardlineError | None = None
    taken: list[int] = field(default_factory=list)  # tokens of each sequence
    closed: list[bool] = field(default_factory=list)  # the sequence's finish was taken
    position: int | None = None
    epoch: int = 0
    ended: bool = False  # the end was taken

    def open_cursor(self, num_sequences: int) -> None:
        """Opens the cursor, once; one that is none fails the reader."""
        if self.cursor is not None or self.failure is not None:
            return
        try:
            self.cursor = decode_cursor(self.shown, num_sequences)
        except InvalidRequestError as error:
            self.fail(error)
            return
        self.taken = [s.offset for s in self.cursor.sequences]
        self.closed = [s.closed for s in self.cursor.sequences]

    def fail(self, error: ShardlineError) -> None:
        """Ends the reader with an error; the first one counts."""
        self.failure = self.failure or error
        self.on_change()
