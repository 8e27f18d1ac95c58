"""What one step computes: the scheduler's word to the ranks, and the ranks' answer. Plain data, deltas only.

Ranks keep a table of blocks for each slot; a plan names only the blocks that are new in it:

    slot's table   [ 17 | 4 | 9 | · | · ]
    chunk          first_new_block = 2, new_block_ids = (9,)

Ranks know slots and nothing of requests: `SlotPlan` is all that they get. The scheduler's own `StepPlan` is one, with
the names that it needs to book what comes back.
"""

from dataclasses import dataclass

from shardline_workers.engine import Sampling, TokenLogprobs
from shardline_workers.scheduling.request import SequenceKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotStart:
    """A sequence enters a slot: what stays the same while it is there."""

    slot: int
    sequence: int  # number within its request; keys the sampler's noise
    sampling: Sampling
    num_prompt_tokens: int = 0
    token_ids: tuple[int, ...] = ()  # prompt and output so far, where the choice depends on them; else empty


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotChunk:
    """Consecutive tokens of the sequence in one slot that enter the model in this step."""

    slot: int
    start: int  # position of the first token
    token_ids: tuple[int, ...]
    first_new_block: int  # means nothing where there is no new one
    new_block_ids: tuple[int, ...]
    samples: bool  # whether the token after the last one is to be chosen
    first_scored: int = 0  # token of the chunk; it and those behind it tell how likely the next ones were:
    given_ids: tuple[int, ...] = ()  # the next token of each, tokens of the prompt

    @property
    def num_rows(self) -> int:
        """Rows of logits: one for each given token, then one for the token to be chosen."""
        return len(self.given_ids) + self.samples


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledChunk(SlotChunk):
    """A chunk as the scheduler sees it: whose tokens these are."""

    key: SequenceKey
    arrival: int  # tells the sequence from a successor of the same name


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotPlan:
    """One ragged batch, prefills and decodes together. `starts` take effect before `chunks`."""

    starts: tuple[SlotStart, ...] = ()
    chunks: tuple[SlotChunk, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan(SlotPlan):
    """A batch as the scheduler sees it, with what it counts."""

    chunks: tuple[ScheduledChunk, ...] = ()
    preempted: tuple[SequenceKey, ...] = ()
    num_prefill_tokens: int = 0
    num_decode_tokens: int = 0
    num_prefix_queries: int = 0  # tokens that the prefix index was asked for
    num_prefix_hits: int = 0  # tokens that it had

    @property
    def num_tokens(self) -> int:
        """Tokens that enter the model."""
        return self.num_prefill_tokens + self.num_decode_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledToken:
    """The ranks' answer for one row of logits, in the order of the plan."""

    token_id: int  # chosen or given
    logprobs: TokenLogprobs | None = None
    error: str | None = None  # there was nothing to choose from; token_id means nothing then
