"""A sequence as the scheduler sees it: its tokens, how many of them lie in the KV cache, and in which blocks."""

from dataclasses import dataclass, field
from enum import Enum, auto

from shardline_workers.engine import FinishReason, Sampling, TokenLogprobs


@dataclass(frozen=True, slots=True)
class SequenceKey:
    """Names one sequence of one request."""

    request_id: str
    sequence: int


class SequenceStatus(Enum):
    """Where a sequence stands. ENDED ones are held by nobody but plans that are still under way."""

    WAITING = auto()
    RUNNING = auto()
    ENDED = auto()


@dataclass(slots=True, kw_only=True, eq=False)
class SequenceState:
    """What changes while a sequence is generated. The scheduler alone writes here.

    `token_ids` is prompt and output together. The first `num_computed` of them have their keys and values in the
    cache; a sequence whose every token is computed but for the last is in decode.
    """

    key: SequenceKey
    arrival: int  # order of all sequences; the tail, the highest, is preempted first
    sampling: Sampling
    num_prompt_tokens: int
    token_ids: list[int]
    salt: str  # prefixes are shared only where salts are equal
    status: SequenceStatus = SequenceStatus.WAITING
    num_computed: int = 0
    slot: int | None = None  # row of the ranks' tables while it runs
    is_under_way: bool = False  # whether it is in a step that is not complete
    last_planned: int = 0  # number of the last step that it was in
    block_ids: list[int] = field(default_factory=list)  # in order of positions
    num_told_blocks: int = 0  # of these, known to the ranks
    block_hashes: list[bytes] = field(default_factory=list)  # of the leading full blocks, as far as they were asked for
    num_published: int = 0  # leading blocks that the prefix index was told of
    scores: list[TokenLogprobs] | None = None  # of prompt tokens 1, 2 …, so far; None: not wanted, or told

    @property
    def num_outstanding(self) -> int:
        """Tokens that are known and not yet computed."""
        return len(self.token_ids) - self.num_computed

    @property
    def num_generated(self) -> int:
        """Tokens of output so far, those of earlier incarnations included."""
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def is_scored_now(self) -> bool:
        """Whether a token of its prompt is still to be scored."""
        return bool(self.unscored(0, self.num_prompt_tokens))

    def unscored(self, start: int, end: int) -> range:
        """Those of the positions start … end - 1 whose next token is the prompt's and still to be scored."""
        if self.scores is None:
            return range(0)
        return range(max(start, len(self.scores)), min(end, self.num_prompt_tokens - 1))

    def finish_reason(self) -> FinishReason | None:
        """Why the sequence is at its end now, or None where it is not."""
        return finish_reason(self.sampling, num_generated=self.num_generated, last_id=self.token_ids[-1])


def finish_reason(sampling: Sampling, *, num_generated: int, last_id: int | None) -> FinishReason | None:
    """Why a sequence that has generated so many tokens, `last_id` last, is at its end; None where it is not."""
    if num_generated == 0:
        return None
    if last_id in sampling.stop_token_ids and num_generated > sampling.min_tokens:
        return FinishReason.STOP
    return FinishReason.LENGTH if num_generated >= sampling.max_tokens else None
