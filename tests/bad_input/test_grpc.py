"""Every wrong request is refused in words that help, and leaves nothing behind: nothing crashes, no KV block is lost,
the next good request gets the answer that it always gets."""

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio

from shardline_protos import generation_pb2 as pb
from shardline_workers.engine import StepResult
from tests.bad_input.grpc_row import Call, Row
from tests.bad_input.grpc_rows import ROWS
from tests.bad_input.served_tiny_model import serve_tiny_model
from tests.cluster.router.router_bench import read_all, text_of
from tests.cluster.served_engine import ServedEngine

pytestmark = pytest.mark.process  # a template is rendered in a process

GOOD = pb.GenerateRequest(
    model="tiny",
    text="hello hello hello",
    sampling=pb.SamplingParams(temperature=0.0, max_tokens=3, n=2, ignore_eos=True),
)
_STREAMS = ("Generate", "Resume")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServedEngine]:
    async with serve_tiny_model(tmp_path_factory.mktemp("tiny")) as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def answer(served: ServedEngine) -> str:
    return text_of(await served.answer(GOOD))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("row", ROWS, ids=[row.what for row in ROWS])
async def test_a_wrong_request_is_refused_in_words_that_help(row: Row, served: ServedEngine, answer: str) -> None:
    error = await _refusal(served, row.call)

    told = str(error.details())
    assert error.code() is grpc.StatusCode[row.code], told
    assert [part for part in row.told if part not in told] == [], told
    assert text_of(await served.answer(GOOD)) == answer
    assert await served.comes_to_rest()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_deadline_that_is_over_ends_the_call_and_gives_everything_back(
    served: ServedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = served.engine.step

    def slow_step() -> StepResult:
        time.sleep(0.02)
        return step()

    monkeypatch.setattr(served.engine, "step", slow_step)  # two seconds for what is asked, on whatever machine
    long = pb.GenerateRequest(model="tiny", text="hello", sampling=pb.SamplingParams(max_tokens=100, ignore_eos=True))

    ends = [await _end_within(served, long, timeout_s) for timeout_s in (0.0, 0.3)]

    # The client's clock or the queue's is first.
    assert set(ends) <= {"DEADLINE_EXCEEDED", pb.REQUEST_STATE_EXPIRED}
    assert await served.comes_to_rest()


async def _end_within(served: ServedEngine, request: pb.GenerateRequest, timeout_s: float) -> str | int:
    """The status's name, or the state that the request ended in."""
    try:
        return (await read_all(served.router.stub.Generate(request, timeout=timeout_s)))[-1].finished.state
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)


def test_there_are_enough_rows_and_each_is_another() -> None:
    assert len(ROWS) >= 80
    assert len({row.what for row in ROWS}) == len(ROWS)
    assert len({(row.call.method, row.call.message) for row in ROWS}) == len(ROWS)


async def _refusal(served: ServedEngine, call: Call) -> grpc.aio.AioRpcError:
    path, channel = f"/shardline.v1.Generation/{call.method}", served.router.channel
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        if call.method in _STREAMS:
            stream: Any = channel.unary_stream(path)
            await read_all(stream(call.message, timeout=30))
        else:
            unary: Any = channel.unary_unary(path)
            await unary(call.message, timeout=30)
    return raised.value
