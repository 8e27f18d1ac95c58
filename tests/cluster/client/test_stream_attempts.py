"""One stream's connections, one after the other."""

from typing import Any

import grpc

from shardline.call_failure import STREAM_ENDED, CallFailure
from shardline.endpoints import Endpoints
from shardline.patience import Patience, RetryLimits
from shardline.requests import text_request
from shardline.stream_attempts import StreamAttempts
from shardline.token_stream import TokenStream
from shardline.trace_context import Metadata
from shardline_protos import generation_pb2 as pb
from tests.cluster.client.grpc_errors import FakeError


class FakeCall:
    def __init__(self, method: str, address: str, timeout: float | None, metadata: Metadata | None) -> None:
        self.said = (method, address, timeout)
        self.metadata = metadata
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeStub:
    def __init__(self, address: str) -> None:
        self._address = address

    def Generate(self, _request: Any, timeout: float | None, metadata: Metadata | None) -> FakeCall:  # noqa: N802
        return FakeCall("Generate", self._address, timeout, metadata)

    def Resume(self, _request: Any, timeout: float | None, metadata: Metadata | None) -> FakeCall:  # noqa: N802
        return FakeCall("Resume", self._address, timeout, metadata)


class FakeRouters:
    def stub(self, address: str) -> FakeStub:
        return FakeStub(address)

    def examined(self, address: str, failure: CallFailure) -> CallFailure:
        return failure.rejected(address, "it speaks TLS") if failure.hung_up else failure


def new_attempts(metadata: Metadata | None = None) -> StreamAttempts:
    core = TokenStream(text_request("Hi", "", {}), Patience(RetryLimits()))
    return StreamAttempts(core, Endpoints(["a:1", "b:1"], draw=lambda: 0.0), FakeRouters(), metadata=metadata)


def test_a_call_is_opened_once_and_after_its_end_at_another_router() -> None:
    attempts = new_attempts()

    first, again = attempts.call(), attempts.call()
    attempts.ended(STREAM_ENDED)
    second = attempts.call()

    assert first is again
    assert (first.said, second.said) == (("Generate", "a:1", None), ("Generate", "b:1", None))


def test_once_the_request_has_a_name_it_is_resumed() -> None:
    attempts = new_attempts()
    attempts.call()

    event = attempts.received(pb.GenerateEvent(request_id="r", accepted=pb.Accepted(model="m")))
    attempts.ended(attempts.failure(FakeError(grpc.StatusCode.UNAVAILABLE)))

    assert event is not None
    assert attempts.call().said == ("Resume", "b:1", None)


def test_hanging_up_ends_the_open_call_and_none_where_there_is_none() -> None:
    attempts = new_attempts()
    attempts.hang_up()
    call = attempts.call()

    attempts.hang_up()

    assert call.cancelled
    assert attempts.call() is not call


def test_each_of_its_calls_carries_the_request_s_metadata() -> None:
    attempts = new_attempts((("traceparent", "00-a"),))

    first = attempts.call()
    attempts.ended(STREAM_ENDED)
    second = attempts.call()

    assert first is not second
    assert first.metadata == second.metadata == (("traceparent", "00-a"),)
