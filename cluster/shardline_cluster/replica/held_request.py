"""One request that this leader has the right to write: every id it has, and how much of it the log is known to hold."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from shardline_cluster.queue.answers import GrantedRequest
from shardline_cluster.queue.calls import CommitEntry, SequenceCommit
from shardline_cluster.queue.log_encoding import ID_BYTES, logprobs_width
from shardline_cluster.queue.records import Grant, RequestEnd, RequestInfo, RequestState, SequenceFinish, SequenceLog


@dataclass(slots=True)
class HeldSequence:
    """One sequence: what was generated, and what of it the queue has acknowledged."""

    ids: bytearray  # uint32 little-endian, from token 0
    logprobs: bytearray
    logprobs_bytes: int  # bytes for one token; 0: none are kept
    finish: SequenceFinish | None
    acked: int  # tokens that the log is known to hold
    finish_acked: bool

    @property
    def num_tokens(self) -> int:
        """Tokens generated so far, those of earlier owners included."""
        return len(self.ids) // ID_BYTES

    @property
    def pending(self) -> bool:
        """Whether the log lacks something."""
        return self.num_tokens > self.acked or (self.finish is not None and not self.finish_acked)

    def commit(self, index: int) -> SequenceCommit:
        """What the log lacks; without that, an empty commit that shows where this leader believes the log to end."""
        return SequenceCommit(
            sequence=index,
            offset=self.acked,
            ids=bytes(self.ids[self.acked * ID_BYTES :]),
            logprobs=bytes(self.logprobs[self.acked * self.logprobs_bytes :]),
            finish=None if self.finish_acked else self.finish,
        )

    def log(self, num_tokens: int, finish: SequenceFinish | None) -> SequenceLog:
        """The sequence up to `num_tokens`, ended by `finish`."""
        return SequenceLog(
            bytes(self.ids[: num_tokens * ID_BYTES]), bytes(self.logprobs[: num_tokens * self.logprobs_bytes]), finish
        )


@dataclass(slots=True)
class HeldRequest:
    """A granted request. Mutable, owned by HeldRequests."""

    info: RequestInfo
    grant: Grant
    sequences: list[HeldSequence]
    attempts: int
    seen: str  # identity of the server that last showed that it knows this request
    error: str = ""  # not empty: it is to end as FAILED
    ask: bool = False  # the next commit must name it, tokens or not
    not_before: float = 0.0  # after a HELD: instant at which to send the finish again
    restoring: bool = False  # a restore about it waits or is in flight
    key: str = field(init=False)  # this grant's name in the engine: a later grant of the same request has another

    def __post_init__(self) -> None:
        self.key = f"{self.info.id}#{self.grant.epoch}.{self.grant.nonce.hex()}"

    @classmethod
    def of(cls, granted: GrantedRequest, *, seen: str) -> "HeldRequest":
        """A request as a claim brought it: all that it has is in the log."""
        num_logprobs = granted.info.submission.num_logprobs
        width = 0 if num_logprobs is None else logprobs_width(num_logprobs)
        sequences = [
            HeldSequence(
                bytearray(log.ids), bytearray(log.logprobs), width, log.finish, log.num_tokens, log.finish is not None
            )
            for log in granted.logs
        ]
        return cls(granted.info, granted.grant, sequences, granted.attempts, seen)

    @property
    def id(self) -> str:
        """The request's id."""
        return self.info.id

    @property
    def num_uncommitted(self) -> int:
        """Tokens that are not known to be in the log."""
        return sum(s.num_tokens - s.acked for s in self.sequences)

    @property
    def finished(self) -> bool:
        """Whether nothing more will be generated."""
        return bool(self.error) or all(s.finish for s in self.sequences)

    @property
    def pending(self) -> bool:
        """Whether a commit has something to say about it."""
        return self.ask or bool(self.error) or any(s.pending for s in self.sequences)

    def record(self, sequence: int, *, ids: bytes, logprobs: bytes, finish: SequenceFinish | None) -> None:
        """Takes new tokens of one sequence; what comes after its finish is dropped."""
        held = self.sequences[sequence]
        if held.finish is not None:
            return
        held.ids += ids
        held.logprobs += logprobs
        held.finish = finish

    def entry(self) -> CommitEntry:
        """What the next commit says about it: all sequences where it asks how the request stands."""
        commits = tuple(s.commit(i) for i, s in enumerate(self.sequences) if self.ask or s.pending)
        return CommitEntry(self.id, self.grant, commits, self.error)

    def taken(self, entry: CommitEntry) -> None:
        """The log holds everything that `entry` said."""
        for commit in entry.sequences:
            sequence = self.sequences[commit.sequence]
            sequence.acked = max(sequence.acked, commit.offset + len(commit.ids) // ID_BYTES)
            sequence.finish_acked = sequence.finish_acked or commit.finish is not None

    def put_back(self, lengths: Sequence[int]) -> None:
        """The log ends earlier than believed: what is past it, and every finish, is to be sent again."""
        for sequence, length in zip(self.sequences, lengths, strict=True):
            sequence.acked = min(sequence.acked, length)
            sequence.finish_acked = False

    def restored(self, logs: Sequence[SequenceLog]) -> None:
        """A server that had forgotten it has adopted these logs; finishes are told again by the next commit."""
        for sequence, log in zip(self.sequences, logs, strict=True):
            sequence.acked = log.num_tokens
            sequence.finish_acked = False

    def doubt(self) -> None:
        """Another server answers: it may lack anything."""
        self.ask = True
        self.not_before = 0.0
        for sequence in self.sequences:
            sequence.finish_acked = False

    def logs(self) -> tuple[SequenceLog, ...]:
        """Everything that was generated."""
        return tuple(s.log(s.num_tokens, s.finish) for s in self.sequences)

    def reaches(self, end: RequestEnd) -> bool:
        """Whether everything up to an end is held here."""
        return all(s.num_tokens >= offset for s, offset in zip(self.sequences, end.offsets, strict=True))

    def logs_until(self, end: RequestEnd) -> tuple[SequenceLog, ...]:
        """Everything up to an end."""
        cuts = zip(self.sequences, end.offsets, end.finishes, strict=True)
        return tuple(sequence.log(offset, finish) for sequence, offset, finish in cuts)

    def own_end(self) -> RequestEnd:
        """The end that this leader's last commit wrote."""
        state = RequestState.FAILED if self.error else RequestState.DONE
        offsets = tuple(s.num_tokens for s in self.sequences)
        return RequestEnd(state, offsets, tuple(s.finish for s in self.sequences), error=self.error)
