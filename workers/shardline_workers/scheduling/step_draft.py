"""A step plan in the making: the token budget and what has been planned so far."""

from dataclasses import dataclass, field

from shardline_workers.scheduling.request import SequenceKey, SequenceState
from shardline_workers.scheduling.step_plan import ScheduledChunk, SlotStart, StepPlan


@dataclass(slots=True)
class StepDraft:
    """Collects chunks until the budget is used up."""

    budget: int  # tokens left
    score_budget: int  # prompt tokens left that may be scored
    starts: list[SlotStart] = field(default_factory=list)
    chunks: list[ScheduledChunk] = field(default_factory=list)
    preempted: list[SequenceKey] = field(default_factory=list)
    num_prefill_tokens: int = 0
    num_decode_tokens: int = 0
    num_prefix_queries: int = 0
    num_prefix_hits: int = 0

    def add_start(self, state: SequenceState) -> None:
        """Tells that a sequence has entered its slot."""
        assert state.slot is not None, "a sequence that starts has a slot"
        self.num_prefix_queries += len(state.token_ids)
        self.num_prefix_hits += state.num_computed
        self.starts.append(
            SlotStart(
                slot=state.slot,
                sequence=state.key.sequence,
                sampling=state.sampling,
                num_prompt_tokens=state.num_prompt_tokens,
                token_ids=tuple(state.token_ids) if state.sampling.adjusts_logits else (),
            )
        )

    def add_chunk(self, state: SequenceState) -> None:
        """Plans as many of the sequence's outstanding tokens as the budgets allow, and tells its new blocks."""
        assert state.slot is not None, "only sequences with a slot are planned"
        start = state.num_computed
        scored = state.unscored(start, start + min(state.num_outstanding, self.budget))[: self.score_budget]
        num_tokens = self._num_tokens(state)
        self.score_budget -= len(scored)
        self.chunks.append(
            ScheduledChunk(
                key=state.key,
                arrival=state.arrival,
                slot=state.slot,
                start=start,
                token_ids=tuple(state.token_ids[start : start + num_tokens]),
                first_new_block=state.num_told_blocks,
                new_block_ids=tuple(state.block_ids[state.num_told_blocks :]),
                samples=num_tokens == state.num_outstanding,
                first_scored=scored.start - start if scored else 0,
                given_ids=tuple(state.token_ids[position + 1] for position in scored),
            )
        )
        state.num_told_blocks = len(state.block_ids)
        self._count(num_tokens, is_decode=num_tokens == 1 and start >= state.num_prompt_tokens)

    def has_room_for(self, state: SequenceState) -> bool:
        """Whether at least one of the sequence's outstanding tokens can be planned."""
        return self._num_tokens(state) > 0

    def freeze(self) -> StepPlan:
        """The plan."""
        return StepPlan(
            starts=tuple(self.starts),
            chunks=tuple(self.chunks),
            preempted=tuple(self.preempted),
            num_prefill_tokens=self.num_prefill_tokens,
            num_decode_tokens=self.num_decode_tokens,
            num_prefix_queries=self.num_prefix_queries,
            num_prefix_hits=self.num_prefix_hits,
        )

    def _num_tokens(self, state: SequenceState) -> int:
        start, num_tokens = state.num_computed, min(state.num_outstanding, self.budget)
        unscored = state.unscored(start, start + num_tokens)
        # What cannot be scored now is computed later: its logits are needed then.
        return num_tokens if len(unscored) <= self.score_budget else unscored[self.score_budget] - start

    def _count(self, num_tokens: int, *, is_decode: bool) -> None:
        self.budget -= num_tokens
        if is_decode:
            self.num_decode_tokens += num_tokens
        else:
            self.num_prefill_tokens += num_tokens
