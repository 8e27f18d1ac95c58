"""How tokens are to be chosen: every field of `SamplingParams` is checked, alone, beside others, and for the model."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shardline_cluster.queue.log_encoding import logprobs_width
from shardline_cluster.router.admission.field_checks import check_count, check_token_ids, invalid
from shardline_protos import generation_pb2 as pb
from shardline_workers.sampling_bounds import (
    LOGIT_BIAS,
    LOGPROBS,
    MIN_P,
    OUTPUT_PENALTY,
    REPETITION_PENALTY,
    TEMPERATURE,
    TOP_P,
)

MAX_SEQUENCES = 64
MAX_STOPS = 64
MAX_STOP_CHARACTERS = 1024
MAX_STOP_TOKEN_IDS = 64
MAX_BIASES = 1024
MAX_BAD_WORDS = 128
MAX_BAD_WORD_CHARACTERS = 1024
MAX_SCORED_PROMPT_BYTES = 2 * 1024 * 1024  # log-probabilities of a prompt: one commit carries them

_Allowed = Callable[[float], bool]
# Field → whether a value is allowed, and the bound in words. All refuse what is no finite number.
_NUMBERS: Mapping[str, tuple[_Allowed, str]] = {
    "temperature": (TEMPERATURE.allow, f"{TEMPERATURE}, 0 is greedy"),
    "top_p": (TOP_P.allow, f"{TOP_P}, which is off"),
    "min_p": (MIN_P.allow, f"{MIN_P}, 0 is off"),
    "n": (lambda v: 1 <= v <= MAX_SEQUENCES, f"1 … {MAX_SEQUENCES}: send several requests"),
    "max_tokens": (lambda v: v >= 1, "at least 1, or absent for the rest of the context"),
    "logprobs": (LOGPROBS.allow, f"{LOGPROBS}, or absent for none"),
    "prompt_logprobs": (LOGPROBS.allow, f"{LOGPROBS}, or absent for none"),
    "presence_penalty": (OUTPUT_PENALTY.allow, f"{OUTPUT_PENALTY}, 0 is off"),
    "frequency_penalty": (OUTPUT_PENALTY.allow, f"{OUTPUT_PENALTY}, 0 is off"),
    "repetition_penalty": (REPETITION_PENALTY.allow, f"{REPETITION_PENALTY}, 1 is off"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits:
    """What a model allows."""

    vocab_size: int
    max_model_len: int  # prompt and output together
    max_num_seqs: int  # that one replica runs at once


def check_sampling(sampling: pb.SamplingParams) -> None:
    """Everything that can be said without a model.

    Raises:
        InvalidRequestError: the first thing that is wrong.
    """
    _check_constraint(sampling)
    for name, (allowed, bound) in _NUMBERS.items():
        if sampling.HasField(name):
            _check_number(f"sampling.{name}", getattr(sampling, name), allowed, bound)
    _check_texts("sampling.stop", sampling.stop, MAX_STOPS, most_characters=MAX_STOP_CHARACTERS)
    _check_texts("sampling.bad_words", sampling.bad_words, MAX_BAD_WORDS, most_characters=MAX_BAD_WORD_CHARACTERS)
    check_count("sampling.stop_token_ids", len(sampling.stop_token_ids), MAX_STOP_TOKEN_IDS)
    _check_biases(sampling.logit_bias)


def check_sampling_against_model(sampling: pb.SamplingParams, num_prompt_tokens: int, limits: ModelLimits) -> None:
    """What needs a model and the tokenised prompt, which fits.

    Raises:
        InvalidRequestError: the first thing that is wrong.
    """
    check_token_ids("sampling.stop_token_ids", sampling.stop_token_ids, limits.vocab_size)
    _check_biased_ids(sampling.logit_bias, limits.vocab_size)
    if sampling.n > limits.max_num_seqs:
        raise invalid(
            "sampling.n",
            f"is {sampling.n}, but the replicas of this model run {limits.max_num_seqs} sequences at once",
            "send several requests, or serve the model with a higher --max-num-seqs",
        )
    if sampling.HasField("prompt_logprobs"):
        _check_scored_prompt(sampling, num_prompt_tokens, limits.max_num_seqs)
    _check_lengths(sampling, num_prompt_tokens, limits.max_model_len)


def _check_scored_prompt(sampling: pb.SamplingParams, num_prompt_tokens: int, max_num_seqs: int) -> None:
    num_sequences = max(1, sampling.n) + 1
    if num_sequences > max_num_seqs:
        raise invalid(
            "sampling.prompt_logprobs",
            f"takes the room of one more sequence, which makes {num_sequences}, but the replicas of this model run "
            f"{max_num_seqs} at once",
            "lower n, or serve the model with a higher --max-num-seqs",
        )
    num_bytes = num_prompt_tokens * logprobs_width(max(sampling.prompt_logprobs, sampling.logprobs))
    if num_bytes > MAX_SCORED_PROMPT_BYTES:
        raise invalid(
            "sampling.prompt_logprobs",
            f"makes {num_bytes} bytes of a prompt of {num_prompt_tokens} tokens, but at most {MAX_SCORED_PROMPT_BYTES}"
            " are kept",
            "ask for fewer of the likeliest tokens, or send the prompt in parts",
        )


def _check_lengths(sampling: pb.SamplingParams, num_prompt_tokens: int, max_model_len: int) -> None:
    room = max_model_len - num_prompt_tokens
    if sampling.HasField("max_tokens") and sampling.max_tokens > room:
        raise invalid(
            "sampling.max_tokens",
            f"is {sampling.max_tokens}, but a prompt of {num_prompt_tokens} tokens leaves {room} of the context of "
            f"{max_model_len}",
            f"ask for at most {room}, or leave it out to get the rest of the context",
        )
    most = sampling.max_tokens if sampling.HasField("max_tokens") else room
    if sampling.min_tokens > most:
        raise invalid(
            "sampling.min_tokens",
            f"is {sampling.min_tokens}, but the output ends at {most} tokens (max_tokens, or the rest of the context)",
            f"ask for at most {most}",
        )


def _check_constraint(sampling: pb.SamplingParams) -> None:
    """The protocol has constraints, and the engine has not yet."""
    if sampling.HasField("constraint"):
        kind = sampling.constraint.WhichOneof("kind") or "empty"
        raise invalid("sampling.constraint", f"is set ({kind}), but is not supported yet", "leave it out")


def _check_number(field: str, value: float, allowed: _Allowed, bound: str) -> None:
    if not math.isfinite(value) or not allowed(value):
        raise invalid(field, f"is {value}", f"must be {bound}")


def _check_texts(field: str, texts: Sequence[str], most: int, *, most_characters: int) -> None:
    check_count(field, len(texts), most)
    for index, text in enumerate(texts):
        if not 1 <= len(text) <= most_characters:
            remedy = "shorten it" if text else "leave it out"
            raise invalid(
                f"{field}[{index}]", f"has {len(text)} characters", f"must have 1 … {most_characters}, {remedy}"
            )


def _check_biases(biases: Mapping[int, float]) -> None:
    check_count("sampling.logit_bias", len(biases), MAX_BIASES)
    for token_id, bias in sorted(biases.items()):
        bound = f"{LOGIT_BIAS}; {LOGIT_BIAS.least} practically forbids a token"
        _check_number(f"sampling.logit_bias[{token_id}]", bias, LOGIT_BIAS.allow, bound)


def _check_biased_ids(biases: Mapping[int, float], vocab_size: int) -> None:
    highest = max(biases, default=0)
    if highest >= vocab_size:
        raise invalid(
            f"sampling.logit_bias[{highest}]",
            "is no token of the model",
            f"ids must be below the vocabulary's {vocab_size}",
        )
