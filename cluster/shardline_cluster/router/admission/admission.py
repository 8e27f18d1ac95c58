"""A checked request to what the queue takes: every default resolved, id and seed drawn, nothing left open."""

import hashlib
import math
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration

from shardline_cluster.errors import KeyConflictError, QueueFullError, RequestTooLargeError, ShardlineError
from shardline_cluster.queue.answers import KeyConflict, LaneFull, TooLarge
from shardline_cluster.queue.records import DisconnectAction, Submission
from shardline_cluster.queue.request_ids import derive_request_id, draw_request_id
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.admission.tokenized_request import TokenizedRequest
from shardline_protos import generation_pb2 as pb
from shardline_protos.record_pb2 import RequestPayload
from shardline_workers.text.text_model import SamplingDefaults

N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Where a request goes and under which conditions."""

    model: str  # as deployed
    lane: str
    drawn: str  # identity of the lane's server right now
    tenant: str
    terms: QueueTerms
    max_model_len: int
    defaults: SamplingDefaults
    time_remaining_s: float | None  # of the client's own deadline
    traceparent: str = ""  # of the trace that the request belongs to; empty: none


def submission_of(request: pb.GenerateRequest, tokens: TokenizedRequest, admission: Admission) -> Submission:
    """The submission of a request that `validation` has passed."""
    key = request.idempotency_key or None
    digest = body_digest(request)
    lane, tenant = admission.lane, admission.tenant
    request_id = derive_request_id(lane, tenant, key, digest) if key else draw_request_id(lane)
    num_prompt_tokens = len(tokens.prompt_ids)
    sampling = resolved_sampling(request.sampling, request_id, num_prompt_tokens, admission)
    payload = RequestPayload(
        model=admission.model,
        prompt_ids=tokens.prompt_ids,
        sampling=sampling,
        metadata=dict(request.metadata),
        prompt_text=tokens.echoed_text,
        traceparent=admission.traceparent,
        bad_words=[pb.TokenIds(ids=ids) for ids in tokens.bad_words],
    )
    action, grace_ms = _on_disconnect(request.on_disconnect, admission.terms)
    return Submission(
        id=request_id,
        drawn=admission.drawn,
        payload=payload.SerializeToString(deterministic=True),
        tenant=tenant,
        priority=request.priority,
        num_sequences=sampling.n + sampling.HasField("prompt_logprobs"),
        has_prompt_log=sampling.HasField("prompt_logprobs"),
        prompt_tokens=num_prompt_tokens,
        max_tokens=sampling.max_tokens,
        num_logprobs=_num_logprobs(sampling),
        timeout_ms=_timeout_ms(request, admission.time_remaining_s),
        max_queue_ms=_ms(request.max_queue_time)
        if request.HasField("max_queue_time")
        else admission.terms.max_queue_ms,
        on_disconnect=action,
        grace_ms=grace_ms,
        retention_ms=admission.terms.retention_ms,
        store=request.store if request.HasField("store") else True,
        idempotency_key=key,
        body_digest=digest,
        background=request.background,
    )


def body_digest(request: pb.GenerateRequest) -> str:
    """SHA-256 over what the client sent, its idempotency key excepted, in hexadecimal."""
    body = pb.GenerateRequest()
    body.CopyFrom(request)
    body.ClearField("idempotency_key")
    return hashlib.sha256(body.SerializeToString(deterministic=True)).hexdigest()


def seed_of(request_id: str) -> int:
    """The seed of a request that names none: a function of its id, 0 … 2^64 - 1."""
    return int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:8], "little")


def resolved_sampling(
    asked: pb.SamplingParams, request_id: str, num_prompt_tokens: int, admission: Admission
) -> pb.SamplingParams:
    """The same with every default filled in: the client's, else the model's, else the protocol's."""
    sampling = pb.SamplingParams(
        temperature=_first(admission.defaults.temperature, 1.0),
        top_k=_first(admission.defaults.top_k, 0),
        top_p=_first(admission.defaults.top_p, 1.0),
        min_p=_first(admission.defaults.min_p, 0.0),
        repetition_penalty=_first(admission.defaults.repetition_penalty, 1.0),
        seed=seed_of(request_id),
        n=1,
        max_tokens=admission.max_model_len - num_prompt_tokens,
        ignore_eos=False,
        include_stop_in_output=False,
        skip_special_tokens=True,
    )
    sampling.MergeFrom(asked)
    return sampling


def refusal(answer: KeyConflict | LaneFull | TooLarge) -> ShardlineError:
    """Why the queue did not take a request, in words."""
    if isinstance(answer, KeyConflict):
        return KeyConflictError(
            f"idempotency_key belongs to request {answer.id}, which has another body: "
            "use a new key, or send the same body"
        )
    if isinstance(answer, TooLarge):
        return RequestTooLargeError(
            f"the request may need {answer.tokens} tokens, but the largest deployed replica holds {answer.bound}: "
            "ask for fewer max_tokens, or shorten the prompt"
        )
    retry_after_s = answer.retry_after_ms / 1000
    return QueueFullError(
        f"the queue is full ({answer.bound} is {answer.value}): try again in {retry_after_s:g} s",
        retry_after_s=retry_after_s,
    )


def _num_logprobs(sampling: pb.SamplingParams) -> int | None:
    """What the log keeps at each position: it has one width for prompt and output."""
    asked = [getattr(sampling, name) for name in ("logprobs", "prompt_logprobs") if sampling.HasField(name)]
    return max(asked, default=None)


def _on_disconnect(asked: pb.OnDisconnect, terms: QueueTerms) -> tuple[DisconnectAction, int]:
    kind = asked.WhichOneof("action")
    if kind == "cancel":
        return DisconnectAction.CANCEL, 0
    if kind == "keep_going":
        return DisconnectAction.CONTINUE, 0
    return DisconnectAction.GRACE, _ms(asked.grace) if kind == "grace" else terms.grace_ms


def _timeout_ms(request: pb.GenerateRequest, time_remaining_s: float | None) -> int | None:
    """From acceptance to the end. The deadline of a background call is for its acceptance only."""
    asked = [_ms(request.timeout)] if request.HasField("timeout") else []
    if time_remaining_s is not None and not request.background:
        asked.append(max(1, math.floor(time_remaining_s * 1000)))
    return min(asked, default=None)


def _ms(duration: Duration) -> int:
    return max(duration.seconds * 1000 + math.ceil(duration.nanos / 1e6), 0)


def _first(told: N | None, otherwise: N) -> N:
    return otherwise if told is None else told
