"""What enters the next step: continuous batching over a paged KV cache. Pure decisions over plain data.

A step is one ragged batch under a token budget: running decodes first, then prefills in chunks, then sequences that
wait. Where a decode finds no free block, the sequence that arrived last is sent back and computed again later
(preemption by recompute). Sequences of one request share the full blocks of their prompt: the first computes them, the
others wait for it.

**Steps under way.** A pipeline computes as many steps at once as it has stages, so `schedule` may be called again
before the step before is complete. A sequence is in one of them at most, since its next token depends on the last one;
each step takes its share of those that run, about a stage's part, so that the next step finds some, too. Whoever was
planned longest ago comes first.

- *Ended under way* (stopped, cancelled, failed): slot and blocks are given to others at once. Each stage computes steps
  in the order of their plans, so a late step writes to such a block before the next holder does, and whoever holds it
  reads only what was written for it. What the late step answers is dropped.
- *Preempted under way*: never, for its work would be lost. A sequence that finds no block waits until a later arrival
  that is under way comes back and can go.
- *Published* is a prefix when its step is complete, and not before: a NaN might come out of it.

Nothing deadlocks: what is under way comes back; and where nothing is, the sequence that arrived first of all is never
preempted in favour of another, and alone it fits.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

from shardline_workers.engine import Capacity, EngineLoad, EngineRequest, SequenceStep, TokenLogprobs
from shardline_workers.scheduling.request import SequenceKey, SequenceState, SequenceStatus
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits
from shardline_workers.scheduling.sequence_blocks import SequenceBlocks
from shardline_workers.scheduling.sequence_queues import SequenceQueues, arrival
from shardline_workers.scheduling.step_draft import StepDraft
from shardline_workers.scheduling.step_plan import SampledToken, ScheduledChunk, StepPlan
from shardline_workers.scheduling.steps_under_way import StepsUnderWay


class Scheduler:
    """All requests of an engine, or of one data-parallel group.

    `schedule` → compute → `complete`, up to `limits.max_in_flight` times at once and in order; the others between any
    two calls.
    """

    def __init__(self, limits: SchedulerLimits) -> None:
        self.limits = limits
        self._blocks = SequenceBlocks(num_blocks=limits.num_blocks, block_size=limits.block_size)
        self._queues = SequenceQueues(limits.max_num_seqs)
        self._alive: dict[str, dict[int, SequenceState]] = {}
        self._ended_at_start: list[SequenceStep] = []
        self._under_way = StepsUnderWay()
        self._next_arrival = 0

    def add(self, request: EngineRequest) -> None:
        """Takes a request over; its sequences wait.

        Raises:
            RequestTooLargeError: prompt and output never fit.
            ValueError: the request is known already, has no prompt, or may generate nothing.
        """
        if request.request_id in self._alive:
            raise ValueError(f"request {request.request_id!r} is here already")
        self.limits.check(request)
        sequences: dict[int, SequenceState] = {}
        for number, start in enumerate(request.sequences):
            if start.finished:
                continue
            sequence = self._new_sequence(request, number, generated_ids=start.generated_ids)
            reason = sequence.finish_reason()
            if reason is None:
                if not sequences and request.sampling.num_prompt_logprobs is not None:
                    sequence.scores = []
                sequences[number] = sequence
                self._queues.add(sequence)
            else:
                # The log ends where the sequence ends, but does not say so: we do.
                self._ended_at_start.append(
                    SequenceStep(request_id=request.request_id, sequence=number, token_ids=(), finish=reason)
                )
        if sequences:
            self._alive[request.request_id] = sequences

    def stop_sequence(self, request_id: str, sequence: int) -> None:
        """Ends one sequence and frees what it has. Unknown ones are ignored."""
        self._ended_at_start = [
            step for step in self._ended_at_start if (step.request_id, step.sequence) != (request_id, sequence)
        ]
        state = self._alive.get(request_id, {}).get(sequence)
        if state is not None:
            self._end(state)

    def cancel(self, request_id: str) -> None:
        """Ends all sequences of a request. Unknown ones are ignored."""
        self._ended_at_start = [step for step in self._ended_at_start if step.request_id != request_id]
        for state in list(self._alive.get(request_id, {}).values()):
            self._end(state)

    def has_work(self) -> bool:
        """Whether a step would do something, now or when those that are under way are complete."""
        return bool(self._alive or self._ended_at_start)

    def knows(self, request_id: str) -> bool:
        """Whether something of the request is still to be told."""
        return request_id in self._alive or any(step.request_id == request_id for step in self._ended_at_start)

    def num_cached_tokens(self, request: EngineRequest) -> int:
        """Tokens at the beginning of the request's prompt that are in the KV cache now."""
        if not self.limits.enable_prefix_caching:
            return 0
        return self._blocks.num_cached_tokens(request.prompt_ids, salt=request.cache_salt)

    def capacity(self) -> Capacity:
        """Room beside all sequences that are here, the waiting ones at the size that they have now."""
        num_sequences = len(self._queues.waiting) + len(self._queues.running)
        claimed = sum(self._blocks.blocks_for(len(sequence.token_ids) + 1) for sequence in self._queues.waiting)
        return Capacity(
            free_slots=max(0, self.limits.max_num_seqs - num_sequences),
            free_tokens=max(0, self._blocks.num_free - claimed) * self.limits.block_size,
        )

    def load(self) -> EngineLoad:
        """What is held now."""
        usage = 1 - self._blocks.num_free / self.limits.num_blocks
        return EngineLoad(len(self._queues.running), len(self._queues.waiting), usage)

    def num_next_tokens(self) -> int:
        """About how many tokens the next step will hold, without planning it: rather too many than too few."""
        outstanding = sum(sequence.num_outstanding for sequence in self._queues.running if not sequence.is_under_way)
        outstanding += sum(len(sequence.token_ids) for sequence in self._queues.waiting)
        return min(outstanding, self.limits.max_num_batched_tokens)

    def schedule(self) -> StepPlan:
        """Plans the next step and gives its sequences their blocks and slots.

        A plan without chunks is nothing to compute: everything that could be is under way.
        """
        draft = StepDraft(budget=self.limits.max_num_batched_tokens, score_budget=self.limits.max_scored_tokens)
        share = self._share()
        self._plan_running(draft, share)
        self._admit_waiting(draft, share)
        plan = draft.freeze()
        self._under_way.begin(plan, self._queues.running)
        return plan

    def complete(self, plan: StepPlan, sampled: Sequence[SampledToken]) -> tuple[SequenceStep, ...]:
        """Books what a step computed.

        Args:
            plan: comes from `schedule`; of those with chunks, the oldest that is under way.
            sampled: one for each row of logits, in the plan's order.

        Returns:
            What is to be told. Nothing for a sequence that was stopped or cancelled since `schedule`.
        """
        self._under_way.end(plan, self._queues.running)
        answers = iter(sampled)
        steps = self._ended_at_start
        self._ended_at_start = []
        failed: dict[str, str] = {}
        for chunk in plan.chunks:
            rows = list(islice(answers, chunk.num_rows))
            state = self._alive.get(chunk.key.request_id, {}).get(chunk.key.sequence)
            if state is None or state.arrival != chunk.arrival or chunk.key.request_id in failed:
                continue
            error = next((row.error for row in rows if row.error is not None), None)
            if error is not None:
                failed[chunk.key.request_id] = error
                continue
            steps.extend(self._advance(state, chunk, rows))
        return tuple(self._without_failed(steps, failed))

    def check_integrity(self) -> None:
        """Raises AssertionError where the books do not add up."""
        alive = [state for sequences in self._alive.values() for state in sequences.values()]
        self._blocks.check_integrity(alive)
        self._queues.check_integrity(alive)
        for state in self._queues.running:
            room = len(state.block_ids) * self.limits.block_size
            assert state.num_computed <= room, f"{state.key} computed {state.num_computed} tokens in room for {room}"
        self._under_way.check_integrity(alive)

    # Adding

    def _new_sequence(self, request: EngineRequest, number: int, *, generated_ids: tuple[int, ...]) -> SequenceState:
        self._next_arrival += 1
        return SequenceState(
            key=SequenceKey(request.request_id, number),
            arrival=self._next_arrival,
            sampling=request.sampling,
            num_prompt_tokens=len(request.prompt_ids),
            token_ids=[*request.prompt_ids, *generated_ids],
            salt=request.cache_salt if self.limits.enable_prefix_caching else request.request_id,
        )

    # Planning

    def _share(self) -> int:
        """Sequences of the next step: such that each stage has its part of all that run or can begin."""
        if self.limits.max_in_flight == 1:
            return self.limits.max_num_seqs
        num_sequences = len(self._queues.running) + self._num_admissible()
        return max(1, -(-num_sequences // self.limits.max_in_flight))

    def _num_admissible(self) -> int:
        """About how many of those that wait have room now."""
        free = self._blocks.num_free - len(self._queues.running)
        count = 0
        for state in islice(self._queues.waiting, self._queues.num_free_slots):
            free -= self._blocks.blocks_for(len(state.token_ids))
            if free < 0:
                break
            count += 1
        return count

    def _plan_running(self, draft: StepDraft, share: int) -> None:
        """Decodes first, then prefills, the first arrival of each before the others."""
        chosen = self._choose_running(draft, share)
        for state in chosen:
            if state.num_outstanding == 1:
                draft.add_chunk(state)
        for state in chosen:
            if state.num_outstanding > 1 and draft.has_room_for(state):
                draft.add_chunk(state)

    def _choose_running(self, draft: StepDraft, share: int) -> list[SequenceState]:
        """Those of the next step, by arrival; decodes among them have room for their token."""
        chosen: list[SequenceState] = []
        ready = (state for state in self._queues.running if not state.is_under_way)
        for state in sorted(ready, key=_planned_longest_ago):
            if len(chosen) == share:
                break
            if state.status is SequenceStatus.RUNNING and (state.num_outstanding > 1 or self._make_room(state, draft)):
                chosen.append(state)
        # To make room for one may have cost another that was chosen before it.
        return sorted((state for state in chosen if state.status is SequenceStatus.RUNNING), key=arrival)

    def _admit_waiting(self, draft: StepDraft, share: int) -> None:
        if draft.preempted:
            return  # there was no block for those that run
        for state in list(self._queues.waiting):
            if draft.budget == 0 or not self._queues.num_free_slots or len(draft.chunks) >= share:
                return
            if self._waits_for_sibling(state) or (state.is_scored_now and draft.score_budget == 0):
                continue
            # One block of headroom for each that runs: or the newcomer would be preempted as soon as one grows.
            if not self._blocks.admit(state, headroom=len(self._queues.running)):
                return
            self._start(state, draft)
            draft.add_chunk(state)

    def _waits_for_sibling(self, state: SequenceState) -> bool:
        block_size = self.limits.block_size
        shared = (state.num_prompt_tokens - 1) // block_size * block_size
        siblings = self._alive[state.key.request_id].values()
        return any(s.status is SequenceStatus.RUNNING and s.num_computed < shared for s in siblings)

    def _make_room(self, state: SequenceState, draft: StepDraft) -> bool:
        """Room for one token, at the cost of later arrivals; False: not yet, or the sequence itself had to go."""
        while not self._blocks.has_room(state):
            if self._blocks.num_free:
                self._blocks.grow(state)
                continue
            victim = next(other for other in reversed(self._queues.running) if not other.is_under_way)
            if victim is state and state is not self._queues.running[-1]:
                return False  # later ones are under way: when they come back, they can go
            self._preempt(victim, draft)
            if victim is state:
                return False
        return True

    # Changes of state

    def _start(self, state: SequenceState, draft: StepDraft) -> None:
        self._queues.start(state)
        draft.add_start(state)

    def _preempt(self, state: SequenceState, draft: StepDraft) -> None:
        self._queues.send_back(state)
        self._blocks.release(state)
        draft.preempted.append(state.key)

    def _end(self, state: SequenceState) -> None:
        self._queues.remove(state)
        self._blocks.release(state)
        siblings = self._alive[state.key.request_id]
        del siblings[state.key.sequence]
        if not siblings:
            del self._alive[state.key.request_id]

    # Booking

    def _advance(
        self, state: SequenceState, chunk: ScheduledChunk, rows: Sequence[SampledToken]
    ) -> Iterator[SequenceStep]:
        state.num_computed = chunk.start + len(chunk.token_ids)
        self._blocks.publish(state)
        if state.scores is not None:
            state.scores.extend(row.logprobs for row in rows[: len(chunk.given_ids)] if row.logprobs is not None)
        if not chunk.samples:
            return
        token = rows[-1]
        state.token_ids.append(token.token_id)
        reason = state.finish_reason()
        yield SequenceStep(
            request_id=state.key.request_id,
            sequence=state.key.sequence,
            token_ids=(token.token_id,),
            logprobs=() if token.logprobs is None else (token.logprobs,),
            prompt_logprobs=None if state.scores is None else _take_scores(state),
            finish=reason,
        )
        if reason is not None:
            self._end(state)

    def _without_failed(self, steps: list[SequenceStep], failed: dict[str, str]) -> Iterator[SequenceStep]:
        yield from (step for step in steps if step.request_id not in failed)
        for request_id, error in failed.items():
            first = min(self._alive[request_id])
            for state in self._alive[request_id].values():
                self._blocks.disown(state)
            self.cancel(request_id)
            yield SequenceStep(request_id=request_id, sequence=first, token_ids=(), error=error)


def _take_scores(state: SequenceState) -> tuple[TokenLogprobs, ...]:
    """All of the prompt, told once."""
    scores, state.scores = state.scores or [], None
    return tuple(scores)


def _planned_longest_ago(state: SequenceState) -> tuple[int, int]:
    return state.last_planned, state.arrival
