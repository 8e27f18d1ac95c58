"""Events of a stream become one completion."""

import pytest

from shardline.completion_builder import CompletionBuilder
from shardline.errors import NotCompletedError, RequestCancelledError, RequestExpiredError, RequestFailedError
from shardline.results import (
    Accepted,
    Event,
    Finished,
    FinishReason,
    PromptTokens,
    RequestState,
    SequenceEnd,
    TokenLogprobs,
    Tokens,
    Usage,
)


def accepted() -> Accepted:
    return Accepted(request_id="r", cursor=b"", model="m", duplicate=False, prompt_tokens=1, seed=0)


def tokens(sequence: int, text: str, *token_ids: int, finish: FinishReason | None = None) -> Tokens:
    return Tokens(
        request_id="r",
        cursor=b"",
        sequence=sequence,
        offset=0,
        token_ids=token_ids,
        text=text,
        logprobs=tuple(TokenLogprobs(-float(token_id)) for token_id in token_ids),
        finish_reason=finish,
    )


def finished(state: RequestState, *ends: SequenceEnd, error: str = "") -> Finished:
    usage = Usage(prompt_tokens=1, completion_tokens=2)
    return Finished(request_id="r", cursor=b"", state=state, sequences=ends, usage=usage, error=error)


def built(*events: Event) -> CompletionBuilder:
    builder = CompletionBuilder()
    for event in events:
        builder.take(event)
    return builder


def test_parts_of_the_prompt_are_joined() -> None:
    parts = [
        PromptTokens(request_id="r", cursor=b"", offset=0, token_ids=(5,), logprobs=(None,)),
        PromptTokens(request_id="r", cursor=b"", offset=1, token_ids=(6, 7), logprobs=(TokenLogprobs(-1.0),) * 2),
    ]

    completion = built(accepted(), *parts, finished(RequestState.DONE)).completion()

    assert completion.prompt_token_ids == (5, 6, 7)
    assert completion.prompt_logprobs == (None, TokenLogprobs(-1.0), TokenLogprobs(-1.0))


def test_pieces_are_joined_for_each_sequence() -> None:
    ends = (
        SequenceEnd(sequence=0, finish_reason=FinishReason.STOP, num_tokens=2, stop="!"),
        SequenceEnd(sequence=1, finish_reason=FinishReason.LENGTH, num_tokens=1),
    )

    completion = built(
        accepted(),
        tokens(1, "x", 7, finish=FinishReason.LENGTH),
        tokens(0, "a", 1),
        tokens(0, "b", 2, 3),
        finished(RequestState.DONE, *ends),
    ).completion()

    first, second = completion.outputs
    assert (completion.model, completion.text, completion.token_ids) == ("m", "ab", (1, 2, 3))
    assert (first.stop, first.finish_reason, first.logprobs[2].logprob) == ("!", FinishReason.STOP, -3.0)
    assert (second.text, second.finish_reason) == ("x", FinishReason.LENGTH)
    assert completion.usage.completion_tokens == 2


def test_a_sequence_without_a_token_is_an_empty_output() -> None:
    end = SequenceEnd(sequence=0, finish_reason=FinishReason.STOP, num_tokens=0)

    completion = built(accepted(), finished(RequestState.DONE, end)).completion()

    assert (completion.text, completion.token_ids, completion.finish_reason) == ("", (), FinishReason.STOP)


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (RequestState.CANCELLED, RequestCancelledError),
        (RequestState.EXPIRED, RequestExpiredError),
        (RequestState.FAILED, RequestFailedError),
    ],
)
def test_another_end_is_an_error_that_holds_what_there_is(state: RequestState, kind: type[NotCompletedError]) -> None:
    builder = built(accepted(), tokens(0, "half", 1), finished(state, error="the reason"))

    with pytest.raises(kind, match=r"request r .*: the reason") as raised:
        builder.completion()

    assert raised.value.completion.text == "half"
    assert raised.value.request_id == "r"
