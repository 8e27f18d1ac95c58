"""Random lives: whatever is added, stopped, cancelled and preempted, no block leaks, nothing deadlocks, all finish.

One to four steps are under way at once.
"""

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from shardline_workers.engine import (
    EngineRequest,
    FinishReason,
    RequestTooLargeError,
    Sampling,
    SequenceStart,
    SequenceStep,
    TokenLogprobs,
)
from shardline_workers.scheduling.request import SequenceKey
from shardline_workers.scheduling.scheduler import Scheduler
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits
from shardline_workers.scheduling.step_plan import SampledToken, StepPlan

STOP_TOKEN = 0

Written = tuple[tuple[int, int], tuple[int, ...]]  # a place (block, offset), and the prefix that ends there


class SchedulerLives(RuleBasedStateMachine):
    """Keeps its own account of what each sequence owes and of what the ranks know."""

    @initialize(
        num_blocks=st.integers(1, 12),
        block_size=st.integers(1, 4),
        max_num_seqs=st.integers(1, 4),
        spare_budget=st.integers(0, 6),
        max_scored=st.integers(1, 5),
        caching=st.booleans(),
        max_in_flight=st.integers(1, 4),
    )
    def start(
        self,
        num_blocks: int,
        block_size: int,
        max_num_seqs: int,
        spare_budget: int,
        max_scored: int,
        caching: bool,
        max_in_flight: int,
    ) -> None:
        self.limits = SchedulerLimits(
            max_model_len=24,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_seqs + spare_budget,
            num_blocks=num_blocks,
            block_size=block_size,
            max_scored_tokens=max_scored,
            enable_prefix_caching=caching,
            max_in_flight=max_in_flight,
        )
        self.scheduler = Scheduler(self.limits)
        self.owed: dict[SequenceKey, int] = {}  # tokens until max_tokens
        self.tokens: dict[SequenceKey, list[int]] = {}
        self.tables: dict[int, list[int]] = {}
        self.cache: dict[
            tuple[int, int], tuple[int, ...]
        ] = {}  # the prefix that is computed into each place, in plan order
        self.complete_cache: dict[tuple[int, int], tuple[int, ...]] = {}  # the same, by steps that are complete
        self.under_way: deque[tuple[StepPlan, list[Written]]] = deque()
        self.unscored: dict[SequenceKey, int] = {}  # tokens of the prompt, by the sequence that is to tell its scores
        self.num_added = 0

    @rule(
        prompt=st.lists(st.integers(1, 2), min_size=1, max_size=12),
        max_tokens=st.integers(1, 8),
        generated=st.lists(st.integers(0, 9), min_size=1, max_size=3),
        scored=st.booleans(),
    )
    def add(self, prompt: list[int], max_tokens: int, generated: list[int], scored: bool) -> None:
        self.num_added += 1
        request_id = f"r{self.num_added}"
        lengths = [min(length, max_tokens - 1) for length in generated]
        request = EngineRequest(
            request_id=request_id,
            prompt_ids=tuple(prompt),
            sampling=Sampling(
                max_tokens=max_tokens,
                stop_token_ids=frozenset({STOP_TOKEN}),
                num_prompt_logprobs=0 if scored else None,
            ),
            sequences=tuple(SequenceStart(generated_ids=(1,) * length) for length in lengths),
        )
        fits = len(prompt) + max_tokens <= min(self.limits.max_model_len, self.limits.kv_cache_tokens)
        try:
            self.scheduler.add(request)
        except RequestTooLargeError:
            assert not fits
            return
        assert fits
        for number, length in enumerate(lengths):
            self.owed[SequenceKey(request_id, number)] = max_tokens - length
            self.tokens[SequenceKey(request_id, number)] = [*prompt, *[1] * length]
        if scored:
            self.unscored[SequenceKey(request_id, 0)] = len(prompt)

    @rule()
    def begin(self) -> None:
        if len(self.under_way) < self.limits.max_in_flight:
            self._begin()

    @rule(tokens=st.lists(st.sampled_from([STOP_TOKEN, 1, 1, 1, 2]), min_size=4, max_size=4))
    def step(self, tokens: list[int]) -> None:
        self._step(tokens, errors=())

    @rule(tokens=st.lists(st.sampled_from([1, 2]), min_size=4, max_size=4), bad=st.integers(0, 3))
    def step_with_an_error(self, tokens: list[int], bad: int) -> None:
        self._step(tokens, errors=(bad,))

    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        if self.owed:
            key = data.draw(st.sampled_from(sorted(self.owed, key=str)))
            self.scheduler.stop_sequence(key.request_id, key.sequence)
            del self.owed[key]

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.owed:
            key = data.draw(st.sampled_from(sorted(self.owed, key=str)))
            self.scheduler.cancel(key.request_id)
            self._drop(key.request_id)

    @invariant()
    def books_add_up(self) -> None:
        if hasattr(self, "scheduler"):
            self.scheduler.check_integrity()
            assert self.scheduler.has_work() == bool(self.owed)

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        for _ in range(5000):
            if not self.owed:
                break
            self._step([1, 1, 1, 1], errors=())
            self.scheduler.check_integrity()
        assert not self.owed, f"these never finish: {self.owed}"
        while self.under_way:
            self._complete([1, 1, 1, 1], errors=())
        assert self.scheduler.capacity().free_tokens == self.limits.kv_cache_tokens

    def _step(self, tokens: list[int], *, errors: tuple[int, ...]) -> None:
        """As an engine does: all steps that can be under way are, then the oldest is complete."""
        while len(self.under_way) < self.limits.max_in_flight and self._begin():
            pass
        if self.under_way:
            self._complete(tokens, errors=errors)

    def _begin(self) -> bool:
        plan = self.scheduler.schedule()
        if not self.under_way:
            assert bool(plan.chunks) == bool(self.owed), "a step with work computes something, or nothing ever would"
        assert plan.num_tokens <= self.limits.max_num_batched_tokens
        self.scheduler.check_integrity()
        if plan.chunks:
            self.under_way.append((plan, self._mirror(plan)))
        else:
            self._book_all(self.scheduler.complete(plan, []))
        return bool(plan.chunks)

    def _complete(self, tokens: list[int], *, errors: tuple[int, ...]) -> None:
        plan, written = self.under_way.popleft()
        self.complete_cache.update(written)
        self._book_all(self.scheduler.complete(plan, self._answers(plan, tokens, errors=errors)))

    def _book_all(self, steps: tuple[SequenceStep, ...]) -> None:
        for step in steps:
            if step.error is None:
                self._book(step)
            else:
                self._drop(step.request_id)

    def _answers(self, plan: StepPlan, tokens: list[int], *, errors: tuple[int, ...]) -> list[SampledToken]:
        """A row for each given token, whose log-probability is its place in the prompt, and for each chosen one."""
        assert sum(len(chunk.given_ids) for chunk in plan.chunks) <= self.limits.max_scored_tokens
        answers: list[SampledToken] = []
        num_chosen = 0
        for chunk in plan.chunks:
            first = chunk.start + chunk.first_scored + 1
            known = self.tokens[chunk.key][first : first + len(chunk.given_ids)]
            assert list(chunk.given_ids) == known, "what is scored is not what stands in the prompt"
            answers += [
                SampledToken(token_id=token_id, logprobs=TokenLogprobs(float(first + number)))
                for number, token_id in enumerate(known)
            ]
            if chunk.samples:
                error = "broken" if num_chosen in errors else None
                answers.append(SampledToken(token_id=tokens[num_chosen], error=error))
                num_chosen += 1
            assert chunk.num_rows == len(known) + chunk.samples
        return answers

    def _mirror(self, plan: StepPlan) -> list[Written]:
        """Keeps tables and cache as each stage does, step by step, while the steps before may not be complete.

        Every token must find all before it, by complete steps; and no place is written twice in a step. Returns what
        is written.
        """
        for start in plan.starts:
            self.tables[start.slot] = []
        written: dict[tuple[int, int], tuple[int, ...]] = {}
        for chunk in plan.chunks:
            table = self.tables[chunk.slot]
            assert len(table) >= chunk.first_new_block
            table[chunk.first_new_block :] = chunk.new_block_ids
            tokens = self.tokens[chunk.key]
            end = chunk.start + len(chunk.token_ids)
            assert list(chunk.token_ids) == tokens[chunk.start : end] != []
            assert chunk.samples == (end == len(tokens))
            size = self.limits.block_size
            places = [(table[position // size], position % size) for position in range(end)]
            for position, place in enumerate(places[: chunk.start]):
                prefix = tuple(tokens[: position + 1])
                assert self.cache[place] == prefix, f"{chunk.key} reads another's tokens"
                assert self.complete_cache[place] == prefix, f"{chunk.key} reads what is not known to be right"
            assert not written.keys() & set(places[chunk.start :]), "two sequences write to one place"
            written |= {place: tuple(tokens[: chunk.start + n + 1]) for n, place in enumerate(places[chunk.start :])}
        slots = [chunk.slot for chunk in plan.chunks]
        assert len(slots) == len(set(slots))
        self.cache.update(written)
        return list(written.items())

    def _book(self, step: SequenceStep) -> None:
        key, token_ids, finish = SequenceKey(step.request_id, step.sequence), step.token_ids, step.finish
        num_scored = self.unscored.pop(key, None)
        told = None if step.prompt_logprobs is None else [logprobs.chosen for logprobs in step.prompt_logprobs]
        assert told == (None if num_scored is None else list(range(1, num_scored))), "scores are lost, twice or mixed"
        self.owed[key] -= len(token_ids)
        self.tokens[key].extend(token_ids)
        assert self.owed[key] >= 0
        if finish is None:
            assert self.owed[key] > 0
            return
        assert finish is FinishReason.STOP or self.owed[key] == 0
        del self.owed[key]

    def _drop(self, request_id: str) -> None:
        for key in [key for key in self.owed if key.request_id == request_id]:
            del self.owed[key]


TestSchedulerLives = SchedulerLives.TestCase
TestSchedulerLives.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
