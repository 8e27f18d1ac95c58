"""The retry and resume state machine, without any connection: whatever is cut, the text comes whole and once."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline.call_failure import STREAM_ENDED, CallFailure
from shardline.completion_builder import CompletionBuilder
from shardline.errors import (
    DataLossError,
    DeadlineError,
    QueueFullError,
    ServerError,
    StreamMismatchError,
    UnavailableError,
    UnknownModelError,
    UnknownRequestError,
)
from shardline.patience import Patience, RetryLimits
from shardline.results import Accepted, Completion, Finished, PromptTokens, Queued, Started, Tokens
from shardline.token_stream import TokenStream
from shardline_protos import generation_pb2 as pb
from tests.cluster.client.scripted_router import ScriptedRequest, pieces_of

LOST = CallFailure("UNAVAILABLE", "Socket closed")


def a_request(*texts: str, tail: str = "") -> ScriptedRequest:
    return ScriptedRequest("lane-1", [pieces_of(t, first_id=1000 * s) for s, t in enumerate(texts)], tail)


def a_stream(*, deadline: float | None = None, background: bool = False) -> TokenStream:
    request = pb.GenerateRequest(text="Hi", idempotency_key="key", background=background)
    return TokenStream(request, Patience(RetryLimits(), deadline=deadline))


def a_resumed_stream(cursor: bytes) -> TokenStream:
    return TokenStream(pb.ResumeRequest(request_id="lane-1", cursor=cursor), Patience(RetryLimits()))


def serve(request: ScriptedRequest, sent: pb.GenerateRequest | pb.ResumeRequest) -> list[pb.GenerateEvent]:
    """What a router answers to what the stream sends."""
    if isinstance(sent, pb.GenerateRequest):
        return list(request.events(b"", with_acceptance=True))
    return list(request.events(sent.cursor, with_acceptance=False))


def read(
    stream: TokenStream, messages: Sequence[pb.GenerateEvent], *, builder: CompletionBuilder | None = None
) -> None:
    for message in messages:
        event = stream.receive(message, 0.0)
        if event is not None and builder is not None:
            builder.take(event)


def read_with_cuts(stream: TokenStream, request: ScriptedRequest, cuts: Sequence[int]) -> Completion:
    """Reads to the end; the n-th connection breaks after `cuts[n]` messages, those after the last cut hold."""
    builder = CompletionBuilder()
    for cut in (*cuts, None):
        sent, _ = stream.next_request(0.0)
        read(stream, serve(request, sent)[:cut], builder=builder)
        if stream.ended:
            break
        stream.failed(LOST, 0.0, back_off_s=0.0)
    return builder.completion()


def test_it_repeats_generate_with_its_key_until_the_request_has_a_name_then_resumes_from_its_cursor() -> None:
    stream = a_stream()
    first, _ = stream.next_request(0.0)
    stream.failed(LOST, 0.0, back_off_s=0.0)

    second, _ = stream.next_request(0.0)
    read(stream, serve(a_request("Hello"), second)[:5])
    stream.failed(LOST, 0.0, back_off_s=0.0)
    third, _ = stream.next_request(0.0)

    assert isinstance(second, pb.GenerateRequest)
    assert second == first
    assert second.idempotency_key == "key"
    assert third == pb.ResumeRequest(request_id="lane-1", cursor=b"2")


def test_events_come_typed_and_in_order() -> None:
    stream = a_stream()

    events = [stream.receive(m, 0.0) for m in serve(a_request("ab", tail="!"), stream.next_request(0.0)[0])]

    assert [type(event) for event in events] == [Accepted, Queued, Started, Tokens, Tokens, Tokens, Finished]
    assert stream.ended


@given(
    st.lists(st.text(max_size=8), min_size=1, max_size=3),
    st.text(max_size=3),
    st.lists(st.integers(min_value=0, max_value=40), max_size=12),
)
def test_any_cuts_leave_the_text_whole_and_once(texts: list[str], tail: str, cuts: list[int]) -> None:
    request = a_request(*texts, tail=tail)

    completion = read_with_cuts(a_stream(), request, cuts)

    assert [output.text for output in completion.outputs] == [texts[0] + tail, *texts[1:]]
    assert [list(output.token_ids) for output in completion.outputs] == [
        [token_id for token_id, _ in pieces] for pieces in request.sequences
    ]


@given(st.text(min_size=1, max_size=8), st.data())
def test_a_stream_from_a_cursor_brings_exactly_what_comes_after_it(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(min_value=1, max_value=len(text)))
    cuts = data.draw(st.lists(st.integers(min_value=0, max_value=10), max_size=5))

    completion = read_with_cuts(a_resumed_stream(str(start).encode()), a_request(text), cuts)

    assert completion.text == text[start:]


@given(st.text(min_size=2, max_size=8), st.data())
def test_any_message_left_out_or_repeated_is_an_error_and_never_joined(text: str, data: st.DataObject) -> None:
    stream = a_stream()
    messages = serve(a_request(text), stream.next_request(0.0)[0])
    first_token = 3
    index = data.draw(st.integers(min_value=first_token, max_value=first_token + len(text) - 1))
    repeated = data.draw(st.booleans())
    changed = messages[: index + 1] + messages[index:] if repeated else messages[:index] + messages[index + 1 :]

    with pytest.raises(StreamMismatchError) as raised:
        read(stream, changed)

    assert raised.value.request_id == "lane-1"
    assert raised.value.cursor == str(index - first_token + repeated).encode()


def test_a_gap_at_the_very_end_is_an_error_too() -> None:
    stream = a_stream()
    messages = serve(a_request("abc"), stream.next_request(0.0)[0])

    with pytest.raises(StreamMismatchError, match="sequence 0: the request ended with 3 tokens, but 2 were received"):
        read(stream, messages[:5] + messages[-1:])


def test_tokens_after_the_end_of_their_sequence_are_an_error() -> None:
    stream = a_stream()
    messages = serve(a_request("abc"), stream.next_request(0.0)[0])
    late = pb.GenerateEvent(request_id="lane-1", tokens=pb.Tokens(offset=3, token_ids=[9]))

    with pytest.raises(StreamMismatchError, match=r"sent 1 tokens at offset 3, but 3 were received and it had ended"):
        read(stream, [*messages[:-1], late])


def test_another_requests_event_is_an_error() -> None:
    stream = a_stream()
    read(stream, serve(a_request("abc"), stream.next_request(0.0)[0])[:3])

    with pytest.raises(StreamMismatchError, match="request 'lane-2'"):
        stream.receive(pb.GenerateEvent(request_id="lane-2", started=pb.Started(attempt=1)), 0.0)


def prompt_event(offset: int, *token_ids: int, request_id: str = "r") -> pb.GenerateEvent:
    logprobs = [pb.TokenLogprobs(logprob=-1.0)] * len(token_ids)
    prompt = pb.Prompt(offset=offset, token_ids=token_ids, logprobs=logprobs)
    return pb.GenerateEvent(request_id=request_id, cursor=b"c", prompt=prompt)


def test_tokens_of_the_prompt_join_one_another_and_an_empty_end_is_no_news() -> None:
    stream = a_stream()

    told = [stream.receive(message, 0.0) for message in (prompt_event(0, 5, 6), prompt_event(2, 7), prompt_event(3))]

    assert [event.token_ids for event in told if isinstance(event, PromptTokens)] == [(5, 6), (7,)]
    assert told[2] is None


@pytest.mark.parametrize("offset", [0, 1, 3])
def test_a_gap_or_a_repeat_in_the_prompt_is_an_error(offset: int) -> None:
    stream = a_stream()
    stream.receive(prompt_event(0, 5, 6), 0.0)

    with pytest.raises(StreamMismatchError, match=f"tokens of the prompt from {offset} on, but 2 are here"):
        stream.receive(prompt_event(offset, 7), 0.0)


def test_an_event_of_a_kind_that_only_newer_routers_know_is_passed_over() -> None:
    stream = a_stream()

    assert stream.receive(pb.GenerateEvent(request_id="lane-1"), 0.0) is None
    assert stream.request_id == "lane-1"


def test_a_state_that_only_newer_routers_know_is_an_error_with_the_cursor() -> None:
    stream = a_stream()
    read(stream, serve(a_request("abc"), stream.next_request(0.0)[0])[:5])
    message = pb.GenerateEvent(request_id="lane-1", finished=pb.Finished())

    with pytest.raises(ServerError, match="state 0") as raised:
        stream.receive(message, 0.0)
    assert raised.value.cursor == b"2"


def test_a_stream_that_ends_well_but_too_early_is_resumed() -> None:
    stream = a_stream()
    read(stream, serve(a_request("abc"), stream.next_request(0.0)[0])[:5])

    stream.failed(STREAM_ENDED, 0.0, back_off_s=0.0)

    assert stream.next_request(0.0)[0] == pb.ResumeRequest(request_id="lane-1", cursor=b"2")


def test_a_background_request_ends_with_its_acceptance() -> None:
    stream = a_stream(background=True)
    read(stream, serve(a_request("abc"), stream.next_request(0.0)[0])[:1])

    stream.failed(STREAM_ENDED, 0.0, back_off_s=0.0)

    assert stream.ended


@pytest.mark.parametrize(
    ("code", "kind"),
    [("NOT_FOUND", UnknownModelError), ("DATA_LOSS", DataLossError), ("INTERNAL", ServerError)],
)
def test_what_no_other_try_can_mend_is_raised_at_once(code: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="says the router"):
        a_stream().failed(CallFailure(code, "says the router", method="Generate"), 0.0, back_off_s=0.0)


def test_an_accepted_request_that_nobody_knows_any_more_is_an_error_and_not_submitted_again() -> None:
    stream = a_stream()
    read(stream, serve(a_request("abc"), stream.next_request(0.0)[0])[:1])

    with pytest.raises(UnknownRequestError):
        stream.failed(CallFailure("NOT_FOUND", "no such request", method="Resume"), 0.0, back_off_s=0.0)


def test_refusals_are_waited_out_a_few_times_then_told_with_the_routers_estimate() -> None:
    stream = a_stream()
    refusal = CallFailure("RESOURCE_EXHAUSTED", "the lane is full", retry_after_s=2.5)

    waits = [stream.failed(refusal, 0.0, back_off_s=0.0) for _ in range(3)]

    assert waits == [2.5, 2.5, 2.5]
    with pytest.raises(QueueFullError, match="the lane is full") as raised:
        stream.failed(refusal, 0.0, back_off_s=0.0)
    assert raised.value.retry_after_s == 2.5


def test_an_outage_longer_than_patience_is_told_with_what_a_caller_needs_to_resume() -> None:
    stream = a_stream()
    read(stream, serve(a_request("abc"), stream.next_request(0.0)[0])[:5])
    stream.failed(LOST, 10.0, back_off_s=1.0)
    stream.next_request(69.0)

    with pytest.raises(UnavailableError, match=r"no router answered for 59\.5 s.*UNAVAILABLE: Socket closed") as raised:
        stream.failed(LOST, 69.5, back_off_s=1.0)

    assert (raised.value.request_id, raised.value.cursor) == ("lane-1", b"2")


def test_a_token_renews_patience() -> None:
    stream, request = a_stream(), a_request("a" * 20)

    for at in range(0, 600, 30):
        messages = serve(request, stream.next_request(at)[0])
        token = next(m for m in messages if m.WhichOneof("event") == "tokens")
        for message in messages[: messages.index(token) + 1]:
            stream.receive(message, at)
        stream.failed(LOST, at, back_off_s=29.0)

    assert stream.cursor == b"20"


def test_connections_that_bring_no_token_do_not() -> None:
    stream, request = a_stream(), a_request("a")
    read(stream, serve(request, stream.next_request(0)[0])[:2])
    stream.failed(LOST, 0, back_off_s=29.0)
    stream.receive(serve(request, stream.next_request(30)[0])[0], 30)
    stream.failed(LOST, 30, back_off_s=29.0)
    stream.next_request(62)

    with pytest.raises(UnavailableError):
        stream.failed(LOST, 62, back_off_s=29.0)


def test_the_end_of_a_sequence_in_another_place_is_an_error() -> None:
    stream = a_stream()
    messages = serve(a_request("ab"), stream.next_request(0.0)[0])
    read(stream, messages[:-1])
    messages[-2].tokens.offset = 1

    with pytest.raises(StreamMismatchError, match="at offset 1, but 2 were received"):
        stream.receive(messages[-2], 0.0)


def test_each_call_is_given_what_is_left_of_the_time() -> None:
    stream = a_stream(deadline=100.0)

    assert stream.next_request(30.0)[1] == 70.0
    with pytest.raises(DeadlineError):
        stream.next_request(100.0)


def test_only_a_request_that_is_not_to_be_stored_is_to_be_forgotten_and_only_at_its_end() -> None:
    for store, expected in ((None, False), (True, False), (False, True)):
        stream = TokenStream(pb.GenerateRequest(text="Hi", store=store), Patience(RetryLimits()))
        messages = serve(a_request("ab"), stream.next_request(0.0)[0])

        read(stream, messages[:-1])
        assert not stream.to_be_forgotten
        read(stream, messages[-1:])
        assert stream.to_be_forgotten is expected
