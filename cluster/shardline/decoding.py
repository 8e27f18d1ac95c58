"""From protobuf to the client's results: the other one place where wire and client meet."""

import datetime
import math
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from shardline.results import (
    Accepted,
    CancelResult,
    Event,
    Finished,
    FinishReason,
    ModelInfo,
    PromptTokens,
    Queued,
    RequestState,
    RequestStatus,
    SequenceEnd,
    SequenceOutput,
    Started,
    Tokenization,
    TokenLogprobs,
    Tokens,
    TopLogprob,
    Usage,
)
from shardline_protos import generation_pb2 as pb

_STATES: dict[int, RequestState] = {
    pb.REQUEST_STATE_WAITING: RequestState.WAITING,
    pb.REQUEST_STATE_RUNNING: RequestState.RUNNING,
    pb.REQUEST_STATE_DONE: RequestState.DONE,
    pb.REQUEST_STATE_CANCELLED: RequestState.CANCELLED,
    pb.REQUEST_STATE_EXPIRED: RequestState.EXPIRED,
    pb.REQUEST_STATE_FAILED: RequestState.FAILED,
}
_REASONS: dict[int, FinishReason] = {
    pb.FINISH_REASON_STOP: FinishReason.STOP,
    pb.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    pb.FINISH_REASON_CANCELLED: FinishReason.CANCELLED,
    pb.FINISH_REASON_EXPIRED: FinishReason.EXPIRED,
    pb.FINISH_REASON_FAILED: FinishReason.FAILED,
}


def decode_event(message: pb.GenerateEvent) -> Event | None:
    """The event in a message of a stream; None for a kind that this client does not know (a newer router's)."""
    kind = message.WhichOneof("event")
    if kind == "tokens":
        return _tokens(message)
    if kind == "prompt":
        return _prompt(message)
    if kind == "accepted":
        return _accepted(message)
    if kind == "queued":
        return _queued(message)
    if kind == "started":
        return Started(request_id=message.request_id, cursor=message.cursor, attempt=message.started.attempt)
    if kind == "finished":
        return decode_finished(message.finished, request_id=message.request_id, cursor=message.cursor)
    return None


def _accepted(message: pb.GenerateEvent) -> Accepted:
    return Accepted(
        request_id=message.request_id,
        cursor=message.cursor,
        model=message.accepted.model,
        duplicate=message.accepted.duplicate,
        prompt_tokens=message.accepted.prompt_tokens,
        seed=message.accepted.seed,
    )


def _queued(message: pb.GenerateEvent) -> Queued:
    queued = message.queued
    known = queued.HasField("estimated_wait")
    return Queued(
        request_id=message.request_id,
        cursor=message.cursor,
        position=queued.position,
        estimated_wait_s=queued.estimated_wait.ToMilliseconds() / 1000 if known else None,
    )


def _tokens(message: pb.GenerateEvent) -> Tokens:
    tokens = message.tokens
    return Tokens(
        request_id=message.request_id,
        cursor=message.cursor,
        sequence=tokens.sequence,
        offset=tokens.offset,
        token_ids=tuple(tokens.token_ids),
        text=tokens.text,
        logprobs=tuple(_logprobs(record) for record in tokens.logprobs),
        finish_reason=_REASONS.get(tokens.finish_reason),
    )


def _prompt(message: pb.GenerateEvent) -> PromptTokens:
    return PromptTokens(
        request_id=message.request_id,
        cursor=message.cursor,
        offset=message.prompt.offset,
        token_ids=tuple(message.prompt.token_ids),
        logprobs=_prompt_logprobs(message.prompt),
    )


def _prompt_logprobs(prompt: pb.Prompt) -> tuple[TokenLogprobs | None, ...]:
    return tuple(None if math.isnan(record.logprob) else _logprobs(record) for record in prompt.logprobs)


def _logprobs(record: pb.TokenLogprobs) -> TokenLogprobs:
    return TokenLogprobs(record.logprob, tuple(TopLogprob(top.token_id, top.logprob) for top in record.top))


def decode_finished(finished: pb.Finished, *, request_id: str, cursor: bytes) -> Finished:
    """A request's end."""
    return Finished(
        request_id=request_id,
        cursor=cursor,
        state=decode_state(finished.state),
        sequences=tuple(_sequence_end(sequence) for sequence in finished.sequences),
        usage=Usage(
            prompt_tokens=finished.usage.prompt_tokens,
            completion_tokens=finished.usage.completion_tokens,
        ),
        error=finished.error,
    )


def _sequence_end(result: pb.SequenceResult) -> SequenceEnd:
    return SequenceEnd(
        sequence=result.sequence,
        finish_reason=_REASONS.get(result.finish_reason),
        num_tokens=result.num_tokens,
        stop=result.stop,
    )


def decode_state(state: int) -> RequestState:
    """A request's state.

    Raises:
        ValueError: the router sent a state that this client does not know.
    """
    try:
        return _STATES[state]
    except KeyError:
        raise ValueError(f"the router sent the request state {state}, which this client does not know") from None


def decode_status(status: pb.RequestStatus) -> RequestStatus:
    """The answer of GetRequest."""
    finished = (
        decode_finished(status.finished, request_id=status.request_id, cursor=status.cursor)
        if status.HasField("finished")
        else None
    )
    return RequestStatus(
        request_id=status.request_id,
        model=status.model,
        state=decode_state(status.state),
        submitted=_instant(status.submitted) if status.HasField("submitted") else None,
        deadline=_instant(status.deadline) if status.HasField("deadline") else None,
        attempts=status.attempts,
        prompt_tokens=status.prompt_tokens,
        outputs=_outputs(status.outputs, finished),
        finished=finished,
        cursor=status.cursor,
        metadata=dict(status.metadata),
        prompt_token_ids=tuple(status.prompt.token_ids),
        prompt_logprobs=_prompt_logprobs(status.prompt),
    )


def _outputs(outputs: Sequence[pb.SequenceOutput], finished: Finished | None) -> tuple[SequenceOutput, ...]:
    ends = {end.sequence: end for end in finished.sequences} if finished else {}
    return tuple(
        SequenceOutput(
            sequence=output.sequence,
            text=output.text,
            token_ids=tuple(output.token_ids),
            finish_reason=ends[output.sequence].finish_reason if output.sequence in ends else None,
            stop=ends[output.sequence].stop if output.sequence in ends else "",
        )
        for output in outputs
    )


def _instant(timestamp: Timestamp) -> datetime.datetime:
    return timestamp.ToDatetime(tzinfo=datetime.UTC)


def decode_cancel(response: pb.CancelResponse) -> CancelResult:
    """The answer of Cancel."""
    return CancelResult(decode_state(response.state), tuple(response.end_offsets))


def decode_model(model: pb.Model) -> ModelInfo:
    """One entry of ListModels."""
    return ModelInfo(
        name=model.name,
        max_model_len=model.max_model_len,
        ready_replicas=model.ready_replicas,
        desired_replicas=model.desired_replicas,
        waiting_requests=model.waiting_requests,
        running_requests=model.running_requests,
        has_chat_template=model.has_chat_template,
        default_sampling={field.name: value for field, value in model.default_sampling.ListFields()},
    )


def decode_tokenization(response: pb.TokenizeResponse) -> Tokenization:
    """The answer of Tokenize."""
    return Tokenization(tuple(response.token_ids), response.max_model_len)
