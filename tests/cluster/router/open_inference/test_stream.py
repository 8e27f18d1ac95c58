"""Many requests on one stream: side by side, apart from each other, bounded."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing

import pytest

from shardline_cluster.errors import InvalidRequestError, UnknownModelError
from shardline_cluster.router.open_inference.answer import Answer
from shardline_cluster.router.open_inference.stream import MAX_WAITING, InferenceStream
from shardline_protos import open_inference_pb2 as oip
from tests.cluster.router.open_inference_requests import is_final


class _Requests:
    """What a client sends: requests with these ids; it counts what is read, and may stay open."""

    def __init__(self, ids: Iterable[str], *, stays_open: bool = False, error: Exception | None = None) -> None:
        self._ids = iter(ids)
        self._stays_open = stays_open
        self._error = error
        self.num_read = 0

    async def __aiter__(self) -> AsyncIterator[oip.ModelInferRequest]:
        for id_ in self._ids:
            self.num_read += 1
            yield oip.ModelInferRequest(id=id_)
        if self._error:
            raise self._error
        if self._stays_open:
            await asyncio.Event().wait()


class _Answers:
    """Answers to each request as often as told, when it is let go; knows which are still open."""

    def __init__(self, *, times: int = 1, fail: Callable[[str], Exception | None] = lambda _: None) -> None:
        self._times = times
        self._fail = fail
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.open: set[str] = set()
        self.num_made = 0
        self.errors: list[Exception] = []

    async def __call__(self, request: oip.ModelInferRequest) -> AsyncGenerator[Answer, None]:
        self.open.add(request.id)
        try:
            await self.may_go.wait()
            for number in range(self._times):
                if error := self._fail(request.id):
                    raise error
                self.num_made += 1
                yield Answer(oip.ModelInferResponse(id=request.id), final=number == self._times - 1)
        finally:
            self.open.discard(request.id)


def _stream(answers: "_Answers", **changes: int) -> InferenceStream:
    return InferenceStream(answers, answers.errors.append, **changes)


async def _settled() -> None:
    """Everything that can happen by itself has happened."""
    for _ in range(500):
        await asyncio.sleep(0)


async def _all(stream: InferenceStream, requests: _Requests) -> list[oip.ModelStreamInferResponse]:
    return [response async for response in stream.responses(aiter(requests))]


async def test_requests_are_answered_side_by_side_and_told_apart_by_their_ids() -> None:
    answers = _Answers(times=2)
    answers.may_go.clear()
    reading = asyncio.ensure_future(_all(_stream(answers), _Requests("ab")))

    await _settled()
    side_by_side = set(answers.open)
    answers.may_go.set()
    told = [(r.infer_response.id, is_final(r.infer_response)) for r in await reading]

    assert side_by_side == {"a", "b"}
    assert sorted(told) == [("a", False), ("a", True), ("b", False), ("b", True)]


async def test_the_error_of_one_request_leaves_the_others_alone() -> None:
    answers = _Answers(fail=lambda id_: UnknownModelError("no such model") if id_ == "b" else None)

    responses = await _all(_stream(answers), _Requests("abc"))

    by_id = {response.infer_response.id: response for response in responses}
    assert (by_id["a"].error_message, by_id["c"].error_message) == ("", "")
    assert by_id["b"].error_message == "[request id: b] NOT_FOUND: no such model"
    assert is_final(by_id["b"].infer_response)
    assert [type(error) for error in answers.errors] == [UnknownModelError]


async def test_a_fault_of_ours_is_one_requests_error_too(caplog: pytest.LogCaptureFixture) -> None:
    answers = _Answers(fail=lambda _: RuntimeError("secret"))

    (response,) = await _all(_stream(answers), _Requests([""]))

    assert response.error_message == "INTERNAL: the router failed unexpectedly; its log says more"
    assert "secret" in caplog.text


async def test_no_more_requests_are_read_than_may_be_in_flight() -> None:
    answers, requests = _Answers(), _Requests(map(str, range(10)))
    answers.may_go.clear()
    reading = asyncio.ensure_future(_all(_stream(answers, max_in_flight=3), requests))

    await _settled()
    num_read, in_flight = requests.num_read, len(answers.open)
    answers.may_go.set()

    assert (num_read, in_flight) == (3, 3)
    assert len(await reading) == requests.num_read == 10


async def test_a_client_that_does_not_read_lets_no_answers_pile_up() -> None:
    answers = _Answers(times=1_000)
    stream = _stream(answers, max_in_flight=3)

    async with aclosing(stream.responses(aiter(_Requests("abcdef")))) as responses:
        await anext(responses)
        await _settled()

        assert answers.num_made <= 1 + MAX_WAITING + 3


async def test_closing_a_stream_ends_its_requests_even_where_answers_wait() -> None:
    answers = _Answers(times=1_000)
    responses = _stream(answers).responses(aiter(_Requests("abc", stays_open=True)))
    await anext(responses)
    await _settled()
    assert answers.open == {"a", "b", "c"}

    await responses.aclose()

    assert not answers.open


async def test_an_error_of_reading_ends_the_stream_and_its_requests() -> None:
    answers = _Answers()
    answers.may_go.clear()
    requests = _Requests("a", error=InvalidRequestError("it is malformed", field="request"))

    with pytest.raises(InvalidRequestError, match="it is malformed"):
        await _all(_stream(answers), requests)

    assert not answers.open
