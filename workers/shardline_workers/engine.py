"""What a replica leader asks of an engine, whichever it is: ours, the simulated one, later a foreign one.

An engine is synchronous and belongs to one thread, the step thread: every call below comes from it. It knows nothing
of queues, grants, text or stop strings. Its contract with the leader:

- `add` hands it a request with the tokens that the log holds already; generation goes on after them.
- each `step` returns the tokens that this step computed, one or more for a sequence, in order, none for a sequence
  that is in prefill or preempted. A sequence whose output carries a `finish` is done, its blocks are free.
- `stop_sequence` and `cancel` may come between any two steps. What was computed for it meanwhile is dropped.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


class FinishReason(Enum):
    """Why a sequence ended by itself."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen: every default resolved, checked by the router before it comes here.

    Noise is keyed by (seed, sequence, position), so a choice depends on nothing else than logits and these fields.
    """

    temperature: float = 1.0  # 0 is greedy, ties go to the lowest id
    top_k: int = 0  # 0 is off
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0  # 0 … 2^64 - 1
    max_tokens: int = 16  # at least 1, of each sequence, those already in the log included
    min_tokens: int = 0  # a sequence that has no more tokens is not ended by a stop id: the id cannot be chosen
    stop_token_ids: frozenset[int] = frozenset()  # end-of-text ids included, unless they are to be ignored
    num_logprobs: int | None = None  # likeliest tokens told beside the chosen one; None tells none at all
    num_prompt_logprobs: int | None = None  # the same of the prompt's tokens; None also where they were told before
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, addend), each id once
    repetition_penalty: float = 1.0  # divides positive logits of tokens in prompt or output, multiplies negative ones
    frequency_penalty: float = 0.0  # subtracted from a token's logit for each time that it stands in the output
    presence_penalty: float = 0.0  # subtracted once where it stands in the output
    bad_words: tuple[tuple[int, ...], ...] = ()  # the last token of each cannot follow the others of it in the output

    @property
    def has_penalties(self) -> bool:
        """Whether a token's logit depends on the tokens before it."""
        return (self.repetition_penalty, self.frequency_penalty, self.presence_penalty) != (1.0, 0.0, 0.0)

    @property
    def adjusts_logits(self) -> bool:
        """Whether some logits are changed before a token is chosen from them."""
        may_stop_early = self.min_tokens > 0 and bool(self.stop_token_ids)
        return self.has_penalties or may_stop_early or bool(self.logit_bias or self.bad_words)

    @property
    def num_named_ids(self) -> int:
        """Tokens whose logits may be changed without standing in prompt or output, at most."""
        return len(self.logit_bias) + len(self.stop_token_ids) + len(self.bad_words)


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceStart:
    """Where one sequence of a request stands when the engine gets it."""

    generated_ids: tuple[int, ...] = ()  # in the log already
    finished: bool = False  # nothing more is to be generated


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """A request as the engine sees it."""

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    sequences: tuple[SequenceStart, ...] = (SequenceStart(),)
    generation: str = ""  # the grant it came with; only the simulated engine's audit tokens depend on it
    cache_salt: str = ""  # cached prefixes are shared only by requests of the same salt


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log-probabilities at one position, natural logarithm, of the distribution before temperature and cuts."""

    chosen: float
    top_ids: tuple[int, ...] = ()
    top: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceStep:
    """What one step brought for one sequence."""

    request_id: str
    sequence: int
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()  # one for each token, or empty where none were asked for
    # Of the prompt's second token and all behind it, in the step that brings the first token of the request; else None.
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None
    finish: FinishReason | None = None
    error: str | None = None  # the request cannot be computed (NaN in its logits, say); it is gone from the engine


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What an engine holds at one instant."""

    num_running: int = 0  # sequences in the batch
    num_waiting: int = 0  # sequences that wait inside the engine
    kv_cache_usage: float = 0.0  # 0 … 1, blocks that only the prefix cache remembers not counted


@dataclass(frozen=True, slots=True)
class StageTimes:
    """What a stage of a pipeline did since the last time that it told: in one step, or in several."""

    stage: int
    busy_s: float  # computing, as its first rank measures; the rest of the time it waited for other stages, or for work


@dataclass(frozen=True, slots=True)
class ExpertLoads:
    """How many tokens took what of a mixture of experts in some steps, summed over layers."""

    by_expert: tuple[int, ...]  # by id
    by_part: tuple[float, ...]  # by part of the ranks that experts are dealt to; copies share a load evenly

    def __add__(self, other: "ExpertLoads") -> "ExpertLoads":
        """Both together, of one model in one shape."""
        return ExpertLoads(
            tuple(map(sum, zip(self.by_expert, other.by_expert, strict=True))),
            tuple(map(sum, zip(self.by_part, other.by_part, strict=True))),
        )

    @property
    def imbalance(self) -> float:
        """What the hottest part carries, in parts of the mean: 1 is even; 1 too where nothing was counted."""
        total = sum(self.by_part)
        return max(self.by_part) * len(self.by_part) / total if total else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One step of the whole batch."""

    sequences: tuple[SequenceStep, ...] = ()
    num_prefill_tokens: int = 0
    num_decode_tokens: int = 0
    num_preempted: int = 0  # sequences sent back to waiting inside the engine
    num_prefix_queries: int = 0  # tokens of sequences that entered the batch: the prefix cache is asked for all
    num_prefix_hits: int = 0  # those of them that it had
    load: EngineLoad = EngineLoad()  # after the step
    active_s: float = 0.0  # since the step before, as long as anything was under way
    stage_times: tuple[
        StageTimes, ...
    ] = ()  # a stage's bubble is what its busy time lacks of active_s, in the long run
    expert_loads: ExpertLoads | None = None  # since they were told the last time; None: they are not told now


@dataclass(frozen=True, slots=True)
class Capacity:
    """Room for new requests, in one more sequence each and in tokens of KV cache."""

    free_slots: int
    free_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDescription:
    """What an engine is, told once after loading."""

    numerics_id: str  # equal ids promise equal tokens: weights, kernels, parallel shape, dtype
    max_model_len: int  # tokens of prompt and output together
    max_num_seqs: int  # of one data-parallel group, as are the tokens of its cache
    kv_cache_tokens: int
    vocab_size: int
    details: dict[str, str] = field(default_factory=dict)  # for logs and `shardline status`


class RequestTooLargeError(ValueError):
    """The engine can never hold this request, however empty it is."""


class Engine(Protocol):
    """The seam between a replica's leader and what computes. See the module for the contract."""

    @property
    def description(self) -> EngineDescription:
        """What was loaded."""
        ...

    def capacity(self) -> Capacity:
        """Room that is left now, after everything that was added."""
        ...

    def add(self, request: EngineRequest) -> None:
        """Takes a request over.

        Raises:
            RequestTooLargeError: prompt and output never fit.
        """
        ...

    def stop_sequence(self, request_id: str, sequence: int) -> None:
        """Ends one sequence early (a stop string was found). Unknown ones are ignored."""
        ...

    def cancel(self, request_id: str) -> None:
        """Drops a request and frees all that it has. Unknown ones are ignored."""
        ...

    def has_work(self) -> bool:
        """Whether `step` would do something."""
        ...

    def expected_step_s(self) -> float:
        """How long the next step should take, in seconds; its time limit is a multiple of it."""
        ...

    def step(self) -> StepResult:
        """Computes one step of the batch. With no work: a probe that shows that the device answers."""
        ...

    def check_integrity(self) -> None:
        """Raises AssertionError where the engine's books do not add up (a leaked or twice used block)."""
        ...

    def close(self) -> None:
        """Frees memory, files and threads. Nothing may be called afterwards."""
        ...
