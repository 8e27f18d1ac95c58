"""An engine without a model: the same contract, honest books, time from a formula.

It serves tests, fault campaigns, load tests of everything around the engine, and a first look at a cluster on a laptop.
Sequences are batched continuously, prompts are prefilled in chunks under a token budget, every sequence reserves the KV
tokens of its prompt and its longest output when it enters the batch, so that none is ever preempted.

Of how tokens are chosen it knows the seed alone: penalties, biases, temperatures and bad words change nothing here.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from shardline_workers.engine import (
    Capacity,
    EngineDescription,
    EngineLoad,
    EngineRequest,
    FinishReason,
    RequestTooLargeError,
    SequenceStart,
    SequenceStep,
    StepResult,
    TokenLogprobs,
)
from shardline_workers.scheduling.request import finish_reason
from shardline_workers.simulated_tokens import (
    AUDIT_VOCABULARY,
    BYTE_VOCABULARY,
    SequenceTokens,
    TokenMode,
    sequence_tokens,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedStepTimes:
    """How long a step takes, in seconds: a fixed part, and one for each sequence and each prefilled token in it."""

    step_s: float = 0.02
    sequence_s: float = 0.0
    prefill_token_s: float = 0.0

    def __post_init__(self) -> None:
        if min(self.step_s, self.sequence_s, self.prefill_token_s) < 0:
            raise ValueError(f"the times of a simulated step must not be negative, but are {self}")

    def duration_s(self, *, num_sequences: int, num_prefill_tokens: int) -> float:
        """Of one step."""
        return self.step_s + self.sequence_s * num_sequences + self.prefill_token_s * num_prefill_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedEngineConfig:
    """What a simulated engine can hold and says."""

    tokens: TokenMode = TokenMode.SAME
    replay_text: str = ""
    times: SimulatedStepTimes = SimulatedStepTimes()
    max_model_len: int = 4096
    max_num_seqs: int = 32
    max_num_batched_tokens: int = 2048
    kv_cache_tokens: int | None = None  # None: as much as max_num_seqs sequences of full length need

    def __post_init__(self) -> None:
        for name in ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "kv_cache_tokens"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}, but must be at least 1")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens is {self.max_num_batched_tokens}, but a step with max_num_seqs = "
                f"{self.max_num_seqs} sequences needs at least one token for each"
            )
        if self.tokens is TokenMode.REPLAY and not self.replay_text:
            raise ValueError("the token mode replay needs a text to replay, but replay_text is empty")

    @property
    def kv_tokens(self) -> int:
        """Tokens of KV cache."""
        return self.max_num_seqs * self.max_model_len if self.kv_cache_tokens is None else self.kv_cache_tokens


@dataclass(slots=True)
class _Sequence:
    request: EngineRequest
    index: int
    tokens: SequenceTokens
    num_generated: int
    last_id: int | None
    num_cached: int = 0  # tokens whose keys and values are there
    tells_prompt: bool = False  # its next token brings the log-probabilities of the prompt's

    @property
    def key(self) -> tuple[str, int]:
        return self.request.request_id, self.index

    @property
    def num_known(self) -> int:
        return len(self.request.prompt_ids) + self.num_generated

    @property
    def reserved(self) -> int:
        return _num_reserved_tokens(self.request)

    def finish_reason(self) -> FinishReason | None:
        return finish_reason(self.request.sampling, num_generated=self.num_generated, last_id=self.last_id)


_Plan = list[tuple[_Sequence, int]]  # a sequence and how many of its tokens the step computes


class SimulatedEngine:
    """Implements `Engine`. `sleep` stands for the work: tests pass one that returns at once."""

    def __init__(self, config: SimulatedEngineConfig, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._config = config
        self._sleep = sleep
        self._waiting: deque[_Sequence] = deque()
        self._running: list[_Sequence] = []
        self._ended_at_start: list[SequenceStep] = []

    @property
    def description(self) -> EngineDescription:
        """What it pretends to be."""
        config = self._config
        audited = config.tokens is TokenMode.PER_INCARNATION
        return EngineDescription(
            numerics_id=f"simulated-{config.tokens.value}",
            max_model_len=config.max_model_len,
            max_num_seqs=config.max_num_seqs,
            kv_cache_tokens=config.kv_tokens,
            vocab_size=AUDIT_VOCABULARY if audited else BYTE_VOCABULARY,
            details={"engine": "simulated", "tokens": config.tokens.value, "step_s": str(config.times.step_s)},
        )

    def capacity(self) -> Capacity:
        """Room after everything that was added, waiting sequences included; never negative."""
        sequences = [*self._running, *self._waiting]
        return Capacity(
            free_slots=max(0, self._config.max_num_seqs - len(sequences)),
            free_tokens=max(0, self._config.kv_tokens - sum(s.reserved for s in sequences)),
        )

    def add(self, request: EngineRequest) -> None:
        """Queues the unfinished sequences of a request.

        Raises:
            RequestTooLargeError: prompt and output exceed max_model_len or the whole KV cache.
        """
        needed = _num_reserved_tokens(request)
        bound = min(self._config.max_model_len, self._config.kv_tokens)
        if needed > bound:
            raise RequestTooLargeError(
                f"prompt and output of {request.request_id} have up to {needed} tokens, but this engine holds {bound}: "
                f"shorten the prompt or lower max_tokens"
            )
        first = next((index for index, start in enumerate(request.sequences) if not start.finished), None)
        for index, start in enumerate(request.sequences):
            if not start.finished:
                tells = index == first and request.sampling.num_prompt_logprobs is not None
                self._start(request, index, start, tells_prompt=tells)

    def stop_sequence(self, request_id: str, sequence: int) -> None:
        """Ends one sequence; unknown ones are ignored."""
        self._keep(lambda *key: key != (request_id, sequence))

    def cancel(self, request_id: str) -> None:
        """Drops all sequences of a request; unknown ones are ignored."""
        self._keep(lambda other_id, _: other_id != request_id)

    def has_work(self) -> bool:
        """Whether a sequence waits or runs, or has an end to be told."""
        return bool(self._running or self._waiting or self._ended_at_start)

    def expected_step_s(self) -> float:
        """Duration of the next step by the formula."""
        self._admit()
        return self._duration_s(self._plan())

    def step(self) -> StepResult:
        """Computes one token of each running sequence and the next chunks of prompts, then sleeps for as long."""
        self._admit()
        plan = self._plan()
        num_prefill, num_all = _num_prefill_tokens(plan), sum(count for _, count in plan)
        self._sleep(self._duration_s(plan))
        results = [step for sequence, count in plan if (step := self._compute(sequence, count))]
        done = {(step.request_id, step.sequence) for step in results if step.finish}
        self._running = [s for s in self._running if s.key not in done]
        told, self._ended_at_start = (*self._ended_at_start, *results), []
        return StepResult(
            sequences=told, num_prefill_tokens=num_prefill, num_decode_tokens=num_all - num_prefill, load=self._load()
        )

    def check_integrity(self) -> None:
        """Raises AssertionError where slots or KV tokens are overbooked, or a sequence is booked twice."""
        reserved = sum(s.reserved for s in self._running)
        assert reserved <= self._config.kv_tokens, f"{reserved} KV tokens booked of {self._config.kv_tokens}"
        assert len(self._running) <= self._config.max_num_seqs, f"{len(self._running)} sequences in the batch"
        keys = [s.key for s in [*self._running, *self._waiting]]
        assert len(set(keys)) == len(keys), "a sequence is booked twice"

    def close(self) -> None:
        """Forgets everything."""
        self._keep(lambda *_: False)

    def _load(self) -> EngineLoad:
        reserved = sum(s.reserved for s in self._running)
        return EngineLoad(len(self._running), len(self._waiting), reserved / self._config.kv_tokens)

    def _start(self, request: EngineRequest, index: int, start: SequenceStart, *, tells_prompt: bool) -> None:
        """Lets a sequence wait; one whose log is at its end, without saying so, is told to be finished."""
        tokens = sequence_tokens(self._config.tokens, request, index, replay_text=self._config.replay_text.encode())
        ids = start.generated_ids
        sequence = _Sequence(
            request,
            index,
            tokens,
            num_generated=len(ids),
            last_id=ids[-1] if ids else None,
            tells_prompt=tells_prompt,
        )
        if (reason := sequence.finish_reason()) is None:
            self._waiting.append(sequence)
        else:
            self._ended_at_start.append(
                SequenceStep(request_id=request.request_id, sequence=index, token_ids=(), finish=reason)
            )

    def _keep(self, wanted: Callable[[str, int], bool]) -> None:
        self._waiting = deque(s for s in self._waiting if wanted(*s.key))
        self._running = [s for s in self._running if wanted(*s.key)]
        self._ended_at_start = [s for s in self._ended_at_start if wanted(s.request_id, s.sequence)]

    def _admit(self) -> None:
        """Moves waiting sequences into the batch, first come first served, as far as they fit."""
        free = self._config.kv_tokens - sum(s.reserved for s in self._running)
        while self._waiting and len(self._running) < self._config.max_num_seqs and self._waiting[0].reserved <= free:
            sequence = self._waiting.popleft()
            free -= sequence.reserved
            self._running.append(sequence)

    def _plan(self) -> _Plan:
        """Decodes first, then chunks of prompts in order of arrival, within the token budget."""
        budget = self._config.max_num_batched_tokens
        plan: _Plan = []
        for sequence in sorted(self._running, key=_is_prefill):
            count = min(sequence.num_known - sequence.num_cached, budget)
            if count:
                plan.append((sequence, count))
                budget -= count
        return plan

    def _duration_s(self, plan: _Plan) -> float:
        times = self._config.times
        return times.duration_s(num_sequences=len(plan), num_prefill_tokens=_num_prefill_tokens(plan))

    def _compute(self, sequence: _Sequence, count: int) -> SequenceStep | None:
        """Does `count` tokens; brings a new one once everything known is in the cache."""
        sequence.num_cached += count
        if sequence.num_cached < sequence.num_known:
            return None
        token_id = sequence.tokens.next_id(sequence.num_generated, sequence.last_id)
        sequence.num_generated, sequence.last_id = sequence.num_generated + 1, token_id
        sampling = sequence.request.sampling
        return SequenceStep(
            request_id=sequence.request.request_id,
            sequence=sequence.index,
            token_ids=(token_id,),
            logprobs=_logprobs(token_id, sampling.num_logprobs),
            prompt_logprobs=_prompt_logprobs(sequence),
            finish=sequence.finish_reason(),
        )


def _num_reserved_tokens(request: EngineRequest) -> int:
    return len(request.prompt_ids) + request.sampling.max_tokens


def _num_prefill_tokens(plan: _Plan) -> int:
    return sum(count for sequence, count in plan if _is_prefill(sequence))


def _is_prefill(sequence: _Sequence) -> bool:
    return sequence.num_known - sequence.num_cached > 1 or sequence.num_cached == 0


def _prompt_logprobs(sequence: _Sequence) -> tuple[TokenLogprobs, ...] | None:
    """Told once."""
    if not sequence.tells_prompt:
        return None
    sequence.tells_prompt = False
    request = sequence.request
    ids, number = request.prompt_ids[1:], request.sampling.num_prompt_logprobs
    return tuple(told for token_id in ids for told in _logprobs(token_id, number))


def _logprobs(token_id: int, num_logprobs: int | None) -> tuple[TokenLogprobs, ...]:
    """A made-up distribution: the chosen token has probability ½, the next ids ¼, ⅛ and so on."""
    if num_logprobs is None:
        return ()
    top_ids = tuple((token_id + rank) % BYTE_VOCABULARY if rank else token_id for rank in range(num_logprobs))
    top = tuple(-(rank + 1) * math.log(2) for rank in range(num_logprobs))
    return (TokenLogprobs(-math.log(2), top_ids, top),)
