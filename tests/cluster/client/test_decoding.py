"""Protobuf becomes the client's frozen results."""

import datetime
import math

import pytest

from shardline.decoding import decode_event, decode_model, decode_state, decode_status
from shardline.results import (
    FinishReason,
    PromptTokens,
    Queued,
    RequestState,
    SequenceOutput,
    TokenLogprobs,
    Tokens,
    TopLogprob,
)
from shardline_protos import generation_pb2 as pb


def test_tokens_carry_log_probabilities_and_a_finish() -> None:
    message = pb.GenerateEvent(
        request_id="r",
        cursor=b"c",
        tokens=pb.Tokens(
            sequence=1,
            offset=2,
            token_ids=[3],
            text="x",
            logprobs=[pb.TokenLogprobs(logprob=-0.5, top=[pb.TopLogprob(token_id=4, logprob=-1.5)])],
            finish_reason=pb.FINISH_REASON_LENGTH,
        ),
    )

    assert decode_event(message) == Tokens(
        request_id="r",
        cursor=b"c",
        sequence=1,
        offset=2,
        token_ids=(3,),
        text="x",
        logprobs=(TokenLogprobs(-0.5, (TopLogprob(4, -1.5),)),),
        finish_reason=FinishReason.LENGTH,
    )


def test_the_prompts_first_token_has_no_log_probability() -> None:
    records = [pb.TokenLogprobs(logprob=math.nan), pb.TokenLogprobs(logprob=-0.5)]
    message = pb.GenerateEvent(
        request_id="r", cursor=b"c", prompt=pb.Prompt(offset=0, token_ids=[8, 9], logprobs=records)
    )

    assert decode_event(message) == PromptTokens(
        request_id="r", cursor=b"c", offset=0, token_ids=(8, 9), logprobs=(None, TokenLogprobs(-0.5))
    )


def test_a_wait_that_is_not_known_is_none_and_not_nought() -> None:
    unknown = pb.GenerateEvent(queued=pb.Queued(position=3))
    known = pb.GenerateEvent(queued=pb.Queued(position=3))
    known.queued.estimated_wait.FromMilliseconds(1500)

    waits = [event.estimated_wait_s for event in map(decode_event, (unknown, known)) if isinstance(event, Queued)]

    assert waits == [None, 1.5]


@pytest.mark.parametrize("state", list(RequestState))
def test_every_state_of_the_protocol_is_known(state: RequestState) -> None:
    assert decode_state(pb.RequestState.Value(f"REQUEST_STATE_{state.value}")) is state
    assert state.ended is (state not in (RequestState.WAITING, RequestState.RUNNING))


def test_no_value_of_the_protocol_is_left_out() -> None:
    assert len(pb.RequestState.values()) == len(RequestState) + 1  # and unspecified
    assert len(pb.FinishReason.values()) == len(FinishReason) + 1


def test_a_status_is_told_in_utc_with_the_ends_of_its_sequences() -> None:
    status = pb.RequestStatus(
        request_id="r",
        state=pb.REQUEST_STATE_DONE,
        outputs=[pb.SequenceOutput(sequence=0, token_ids=[1], text="a"), pb.SequenceOutput(sequence=1)],
        finished=pb.Finished(
            state=pb.REQUEST_STATE_DONE,
            sequences=[pb.SequenceResult(sequence=0, finish_reason=pb.FINISH_REASON_STOP, num_tokens=1, stop="b")],
        ),
    )
    status.deadline.FromSeconds(60)

    decoded = decode_status(status)

    assert decoded.deadline == datetime.datetime(1970, 1, 1, 0, 1, tzinfo=datetime.UTC)
    assert decoded.submitted is None
    assert decoded.outputs == (
        SequenceOutput(sequence=0, text="a", token_ids=(1,), finish_reason=FinishReason.STOP, stop="b"),
        SequenceOutput(sequence=1, text="", token_ids=()),
    )
    assert decoded.finished is not None
    assert decoded.finished.state is RequestState.DONE


def test_a_request_that_runs_has_no_end() -> None:
    decoded = decode_status(pb.RequestStatus(request_id="r", state=pb.REQUEST_STATE_RUNNING))

    assert decoded.finished is None


def test_a_model_keeps_all_its_fields() -> None:
    model = pb.Model(
        name="m",
        max_model_len=1,
        ready_replicas=2,
        desired_replicas=3,
        waiting_requests=4,
        running_requests=5,
        has_chat_template=True,
    )

    model.default_sampling.temperature, model.default_sampling.top_k = 0.0, 40

    decoded = decode_model(model)

    plain = [field.name for field in pb.Model.DESCRIPTOR.fields if field.message_type is None]
    assert {name: getattr(decoded, name) for name in plain} == {name: getattr(model, name) for name in plain}
    assert decoded.default_sampling == {"temperature": 0.0, "top_k": 40}
