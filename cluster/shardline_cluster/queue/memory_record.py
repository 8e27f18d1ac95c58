"""One request as the queue in memory keeps it: what `request:ID` and `log:ID:S` are in Redis."""

from dataclasses import dataclass, field

from shardline_cluster.queue.answers import Ended, GrantedRequest, Snapshot
from shardline_cluster.queue.calls import SequenceCommit
from shardline_cluster.queue.log_encoding import ID_BYTES, logprobs_width
from shardline_cluster.queue.records import Grant, RequestEnd, RequestInfo, RequestState, SequenceFinish, SequenceLog


@dataclass(slots=True)
class MemoryRecord:
    """A request's record and logs. Only the lane that owns it changes it."""

    info: RequestInfo
    number: int  # order of arrival in the lane
    fresh: str | None  # server identity under which it is known not to be older than a hold; None: it may be older
    logs: list[SequenceLog]
    state: RequestState = RequestState.WAITING
    epoch: int = 0
    grant: Grant | None = None  # while RUNNING
    owner: str | None = None  # while RUNNING
    claimed: tuple[int, ...] = ()  # log lengths when the grant was given
    attempts: int = 0  # counted crashes
    fruitless_claims: int = 0  # claims since the last new token, hand-offs left out
    charged_tokens: int | None = None  # what its tenant was charged at its first claim
    listeners: dict[str, int] = field(default_factory=dict)  # router → its highest listener number
    end: RequestEnd | None = None
    ending_grant: Grant | None = None  # whose commit ended it
    expires_ms: int = 0  # once it has ended

    @property
    def id(self) -> str:
        """The request's id."""
        return self.info.id

    @property
    def tenant(self) -> str:
        """Whose request it is."""
        return self.info.submission.tenant

    @property
    def waiting(self) -> bool:
        """Whether it waits for its first owner, or for another one without having any token."""
        return self.state is RequestState.WAITING and not any(self.lengths)

    @property
    def handed_back(self) -> bool:
        """Whether it waits with tokens."""
        return self.state is RequestState.WAITING and any(self.lengths)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens in each sequence's log."""
        return tuple(log.num_tokens for log in self.logs)

    @property
    def finishes(self) -> tuple[SequenceFinish | None, ...]:
        """How each sequence ended, as far as it did."""
        return tuple(log.finish for log in self.logs)

    @property
    def num_open(self) -> int:
        """Sequences without a finish."""
        return self.finishes.count(None)

    @property
    def bound_tokens(self) -> int:
        """Tokens that it counts against the lane's bounds."""
        submission = self.info.submission
        return submission.prompt_tokens + submission.num_sequences * submission.max_tokens

    @property
    def claim_tokens(self) -> int:
        """Tokens that a leader must have room for to take it into its next step."""
        submission = self.info.submission
        longest = max((log.num_tokens for log in self.logs if log.finish is None), default=0)
        return submission.prompt_tokens + min(longest, submission.max_tokens) + 1

    @property
    def logprobs_width(self) -> int:
        """Bytes of log-probabilities that go with each token."""
        num_logprobs = self.info.submission.num_logprobs
        return 0 if num_logprobs is None else logprobs_width(num_logprobs)

    def append(self, commit: SequenceCommit, *, record_finish: bool) -> SequenceCommit | None:
        """Adds what the log lacks of a commit that fits it; returns what was added, None where that is nothing."""
        log = self.logs[commit.sequence]
        known = log.num_tokens - commit.offset
        ids, logprobs = commit.ids[known * ID_BYTES :], commit.logprobs[known * self.logprobs_width :]
        finish = commit.finish if record_finish and log.finish is None else None
        self.logs[commit.sequence] = SequenceLog(log.ids + ids, log.logprobs + logprobs, finish or log.finish)
        if ids:
            self.fruitless_claims = 0
        return SequenceCommit(commit.sequence, log.num_tokens, ids, logprobs, finish) if ids or finish else None

    def readable_logs(self) -> tuple[SequenceLog, ...]:
        """The logs from token 0, not beyond the offsets of the end."""
        if self.end is None:
            return tuple(self.logs)
        return tuple(self._cut(log, offset) for log, offset in zip(self.logs, self.end.offsets, strict=True))

    def _cut(self, log: SequenceLog, offset: int) -> SequenceLog:
        return SequenceLog(log.ids[: offset * ID_BYTES], log.logprobs[: offset * self.logprobs_width], log.finish)

    def granted(self) -> GrantedRequest:
        """What its owner is given."""
        assert self.grant is not None, "only a running request has a grant"
        return GrantedRequest(self.info, self.grant, self.readable_logs(), self.attempts)

    def ended(self) -> Ended:
        """What is told of its end."""
        assert self.end is not None, "only an ended request has an end"
        return Ended(self.info, self.end, self.readable_logs())

    def snapshot(self, position: int | None) -> Snapshot:
        """What a reader sees."""
        return Snapshot(self.info, self.state, self.epoch, self.attempts, position, self.readable_logs(), self.end)
