"""A record's payload as engine and leader need it: the one place where the leader reads protobuf."""

from collections.abc import Set
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from shardline_cluster.replica.held_request import HeldRequest
from shardline_protos.record_pb2 import RequestPayload
from shardline_workers.engine import Sampling


class UnreadablePayloadError(ValueError):
    """What lies in the record is no request that this version understands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPlan:
    """What is to be generated."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    num_outputs: int  # sequences that are generated; the record may have one more, of the prompt's own tokens
    stops: tuple[str, ...]
    include_stop: bool
    skip_special: bool


def read_plan(request: HeldRequest, eos_ids: Set[int]) -> RequestPlan:
    """Reads the payload of a granted request.

    Raises:
        UnreadablePayloadError: it is not a payload, or has nothing to generate from.
    """
    payload = RequestPayload()
    try:
        payload.ParseFromString(request.info.submission.payload)
    except DecodeError as error:
        raise UnreadablePayloadError(f"the record's payload is no RequestPayload: {error}") from error
    if not all(word.ids for word in payload.bad_words):
        raise UnreadablePayloadError("the record's payload has a bad word without a token")
    if not payload.prompt_ids:
        raise UnreadablePayloadError("the record's payload has no prompt ids, but at least one is needed")
    params = payload.sampling
    return RequestPlan(
        prompt_ids=tuple(payload.prompt_ids),
        sampling=_sampling(payload, request, eos_ids),
        num_outputs=len(request.sequences) - params.HasField("prompt_logprobs"),
        stops=tuple(params.stop),
        include_stop=params.include_stop_in_output,
        skip_special=params.skip_special_tokens if params.HasField("skip_special_tokens") else True,
    )


def _sampling(payload: RequestPayload, request: HeldRequest, eos_ids: Set[int]) -> Sampling:
    params, submission = payload.sampling, request.info.submission
    return Sampling(
        temperature=params.temperature if params.HasField("temperature") else 1.0,
        top_k=params.top_k,
        top_p=params.top_p if params.HasField("top_p") else 1.0,
        min_p=params.min_p,
        seed=params.seed,
        max_tokens=submission.max_tokens,
        stop_token_ids=frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else frozenset(eos_ids)),
        min_tokens=params.min_tokens,
        num_logprobs=params.logprobs if params.HasField("logprobs") else None,
        num_prompt_logprobs=params.prompt_logprobs if params.HasField("prompt_logprobs") else None,
        logit_bias=tuple(sorted(params.logit_bias.items())),
        repetition_penalty=params.repetition_penalty if params.HasField("repetition_penalty") else 1.0,
        frequency_penalty=params.frequency_penalty,
        presence_penalty=params.presence_penalty,
        bad_words=tuple(tuple(word.ids) for word in payload.bad_words),
    )
