"""Answers: when they are told, what they hold, and how the end is told."""

import json
from collections.abc import AsyncGenerator, Sequence

import pytest

from shardline_cluster.errors import AnswerTooLargeError, ShardlineError
from shardline_cluster.router.open_inference import answer as open_inference_answer
from shardline_cluster.router.open_inference.answer import Answer, answers
from shardline_cluster.router.open_inference.request import AnswerForm
from shardline_cluster.router.open_inference.signature import OUTPUTS, TEXT_OUTPUT, TensorSpec
from shardline_protos import generation_pb2 as pb
from tests.cluster.router.open_inference_requests import tensor_of, texts_of

STOP, LENGTH = pb.FINISH_REASON_STOP, pb.FINISH_REASON_LENGTH
DONE = pb.GenerateEvent(finished=pb.Finished(state=pb.REQUEST_STATE_DONE))


def _tokens(
    text: str, sequence: int = 0, *, ids: Sequence[int] = (1,), finish: pb.FinishReason = pb.FINISH_REASON_UNSPECIFIED
) -> pb.GenerateEvent:
    logprobs = [pb.TokenLogprobs(logprob=-0.5, top=[pb.TopLogprob(token_id=9, logprob=-0.25)]) for _ in ids]
    tokens = pb.Tokens(sequence=sequence, token_ids=ids, text=text, finish_reason=finish, logprobs=logprobs)
    return pb.GenerateEvent(tokens=tokens)


def _form(
    *, streams: bool = True, empty_final: bool = False, n: int = 1, outputs: tuple[TensorSpec, ...] = (TEXT_OUTPUT,)
) -> AnswerForm:
    return AnswerForm(request_id="7", num_sequences=n, outputs=outputs, streams=streams, empty_final=empty_final)


async def _told(form: AnswerForm, *events: pb.GenerateEvent) -> list[Answer]:
    return [answer async for answer in answers(_events(*events), form, str)]


async def _events(*events: pb.GenerateEvent) -> AsyncGenerator[pb.GenerateEvent, None]:
    yield pb.GenerateEvent(accepted=pb.Accepted(model="m", prompt_tokens=3))
    yield pb.GenerateEvent(queued=pb.Queued(position=1))
    yield pb.GenerateEvent(started=pb.Started(attempt=1))
    for event in events:
        yield event


def _texts(told: list[Answer]) -> list[tuple[list[str], bool]]:
    return [(texts_of(answer.response), answer.final) for answer in told]


async def test_a_stream_has_an_answer_for_each_text_and_its_last_one_is_final() -> None:
    told = await _told(_form(), _tokens("a"), _tokens("b"), _tokens("c", finish=STOP), DONE)

    assert _texts(told) == [(["a"], False), (["b"], False), (["c"], True)]
    response = told[0].response
    assert (response.model_name, response.model_version, response.id) == ("m", "1", "7")


async def test_tokens_without_text_wait_for_the_next_ones() -> None:
    form = _form(outputs=OUTPUTS)

    told = await _told(form, _tokens("", ids=[1]), _tokens("é", ids=[2]), _tokens("", ids=[3], finish=STOP), DONE)

    assert [tensor_of(answer.response, "num_output_tokens") for answer in told] == [[2], [1]]
    assert _texts(told) == [(["é"], False), ([""], True)]


async def test_whole_text_is_one_answer() -> None:
    told = await _told(_form(streams=False), _tokens("a"), _tokens("b", finish=LENGTH), DONE)

    assert _texts(told) == [(["ab"], True)]


@pytest.mark.parametrize("streams", [True, False])
async def test_an_empty_final_answer_comes_after_all_outputs_where_it_was_asked_for(streams: bool) -> None:
    told = await _told(_form(streams=streams, empty_final=True), _tokens("a", finish=STOP), DONE)

    assert _texts(told[:-1]) == [(["a"], False)]
    assert (told[-1].final, list(told[-1].response.outputs), told[-1].response.id) == (True, [], "7")


async def test_every_sequence_has_its_place_and_the_last_to_end_is_final() -> None:
    form = _form(n=2)

    told = await _told(form, _tokens("a"), _tokens("b", 1, finish=STOP), _tokens("c", finish=STOP), DONE)

    assert _texts(told) == [(["a", ""], False), (["", "b"], False), (["c", ""], True)]


async def test_all_outputs_tell_what_triton_tells() -> None:
    form = _form(n=2, outputs=OUTPUTS)

    first, last = await _told(
        form, _tokens("ab", ids=[1, 2], finish=LENGTH), _tokens("c", 1, ids=[9], finish=STOP), DONE
    )

    assert tensor_of(first.response, "finish_reason") == ["length", "None"]
    assert tensor_of(last.response, "finish_reason") == ["length", "stop"]
    assert tensor_of(first.response, "cumulative_logprob") == [-1.0, 0.0]
    assert tensor_of(last.response, "cumulative_logprob") == [-1.0, -0.5]
    assert tensor_of(first.response, "num_input_tokens") == [3]
    assert tensor_of(first.response, "num_output_tokens") == [2, 0]
    assert [len(json.loads(text)) for text in tensor_of(first.response, "logprobs")] == [2, 0]
    position = json.loads(tensor_of(first.response, "logprobs")[0])[0]
    assert position == {
        "1": {"logprob": -0.5, "rank": None, "decoded_token": "1"},
        "9": {"logprob": -0.25, "rank": 1, "decoded_token": "9"},
    }
    assert list(json.loads(tensor_of(last.response, "logprobs")[1])[0]) == ["9"]


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (pb.REQUEST_STATE_CANCELLED, "CANCELLED"),
        (pb.REQUEST_STATE_EXPIRED, "DEADLINE_EXCEEDED"),
        (pb.REQUEST_STATE_FAILED, "INTERNAL"),
    ],
)
@pytest.mark.parametrize("streams", [True, False])
async def test_a_bad_end_is_an_error_after_what_a_stream_has_said(
    state: pb.RequestState, code: str, streams: bool
) -> None:
    end = pb.GenerateEvent(finished=pb.Finished(state=state, error="it is so"))
    told = []

    with pytest.raises(ShardlineError) as raised:
        async for answer in answers(_events(_tokens("a"), _tokens("b", finish=STOP), end), _form(streams=streams), str):
            told.append(answer)  # noqa: PERF401 the error comes in between

    assert raised.value.code == code
    assert _texts(told) == ([(["a"], False), (["b"], False)] if streams else [])


async def test_an_answer_that_no_message_holds_is_refused_before_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_inference_answer, "MAX_ANSWER_BYTES", 5)

    streamed = await _told(_form(), _tokens("abcd"), _tokens("efgh", finish=STOP), DONE)
    with pytest.raises(AnswerTooLargeError, match="more than 5 bytes, which no message holds: ask for fewer"):
        await _told(_form(streams=False), _tokens("abcd"), _tokens("efgh", finish=STOP), DONE)

    assert len(streamed) == 2
