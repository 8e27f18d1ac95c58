"""The asynchronous client: the same promises, and those that only an event loop can break."""

import asyncio

import grpc
import pytest

from shardline import Accepted, AsyncClient, Finished, FinishReason, RequestState, Retry, Tokens
from shardline.errors import (
    QueueFullError,
    RequestCancelledError,
    RequestExpiredError,
    StreamClosedError,
    StreamMismatchError,
    UnavailableError,
    UnknownModelError,
    UnknownRequestError,
)
from shardline_protos import generation_pb2 as pb
from tests.cluster.client.conftest import StartRouter
from tests.cluster.client.dead_sockets import RudeListener, unused_address
from tests.cluster.client.scripted_router import Fault, Lie, ScriptedCluster, ScriptedRouter

TEXT = "Hello, world!"


async def paused(router: ScriptedRouter) -> None:
    assert await asyncio.to_thread(router.paused.wait, 30)


async def test_a_completion_comes_whole(start_router: StartRouter) -> None:
    async with AsyncClient(start_router().address) as client:
        completion = await client.generate("Hi", model="scripted", max_tokens=20)

    assert (completion.text, completion.model, completion.state) == (TEXT, "scripted", RequestState.DONE)
    assert completion.finish_reason is FinishReason.STOP


@pytest.mark.parametrize(
    "fault",
    [
        Fault(after=6),
        Fault(after=6, code=None),
        Fault(after=6, code=grpc.StatusCode.CANCELLED),
        Fault(after=6, code=grpc.StatusCode.UNKNOWN, details="Stream removed"),
        Fault(after=6, code=grpc.StatusCode.INTERNAL, details="Received RST_STREAM with error code 2"),
        Fault(after=0),
        Fault(after=1),
    ],
)
async def test_a_broken_stream_goes_on_where_it_was(start_router: StartRouter, fault: Fault) -> None:
    router = start_router(faults=[fault])

    async with AsyncClient(router.address) as client, client.stream("Hi") as stream:
        tokens = [event async for event in stream if isinstance(event, Tokens)]

    assert "".join(event.text for event in tokens) == TEXT
    assert [event.offset for event in tokens if event.token_ids] == list(range(len(TEXT)))
    assert router.methods == ["Generate", "Resume" if fault.after else "Generate"]
    assert len(router.cluster.requests) == 1


async def test_another_router_takes_over_when_one_dies_in_the_middle(start_router: StartRouter) -> None:
    cluster = ScriptedCluster()
    routers = [start_router(cluster, pause_after=6), start_router(cluster, pause_after=6)]

    async with AsyncClient([router.address for router in routers]) as client, client.stream("Hi") as stream:
        assert isinstance(await anext(stream), Accepted)
        dying, other = routers if routers[0].calls else routers[::-1]
        await paused(dying)
        other.go_on.set()
        await asyncio.to_thread(dying.stop)
        completion = await stream.result()

    assert completion.text == TEXT
    assert (dying.methods, other.methods) == (["Generate"], ["Resume"])


async def test_a_peer_that_resets_connections_is_passed_over(start_router: StartRouter) -> None:
    router = start_router()

    with RudeListener() as rude:
        async with AsyncClient([rude.address, router.address]) as client:
            assert [(await client.generate("Hi")).text for _ in range(3)] == [TEXT] * 3


@pytest.mark.parametrize("num_tokens", [50, 2000])
async def test_a_slow_reader_gets_everything_over_one_connection(start_router: StartRouter, num_tokens: int) -> None:
    text = "x" * num_tokens
    router = start_router(ScriptedCluster([text]))

    async with AsyncClient(router.address) as client, client.stream("Hi") as stream:
        await anext(stream)
        await asyncio.sleep(0.2)  # the router has long sent its end when the rest is read
        completion = await stream.result()

    assert completion.text == text
    assert router.methods == ["Generate"]


async def test_a_reader_that_gives_up_waiting_loses_nothing(start_router: StartRouter) -> None:
    router = start_router(pause_after=6)

    async with AsyncClient(router.address) as client, client.stream("Hi") as stream:
        received = [await anext(stream) for _ in range(6)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.05)
        router.go_on.set()
        received += [event async for event in stream]

    assert "".join(event.text for event in received if isinstance(event, Tokens)) == TEXT
    assert router.methods == ["Generate", "Resume"]


async def test_a_gap_is_an_error_and_never_joined(start_router: StartRouter) -> None:
    router = start_router(faults=[Lie(lambda events: events[:6] + events[7:])])
    texts: list[str] = []

    async with AsyncClient(router.address) as client:
        with pytest.raises(StreamMismatchError, match="offset 4, but 3 were received"):
            async for text in client.stream("Hi").text():
                texts.append(text)  # noqa: PERF401 -- what came before the error counts

    assert "".join(texts) == TEXT[:3]


async def test_refusals_are_waited_out_and_those_without_end_told(start_router: StartRouter) -> None:
    refusal = Fault(code=grpc.StatusCode.RESOURCE_EXHAUSTED, details="the lane is full", retry_after_ms=20)
    router = start_router(faults=[refusal] * 5)

    async with AsyncClient(router.address, max_refusals=2) as client:
        with pytest.raises(QueueFullError, match="the lane is full"):
            await client.generate("Hi")
        assert (await client.generate("Hi")).text == TEXT


async def test_what_cannot_be_mended_is_told_at_once(start_router: StartRouter) -> None:
    router = start_router()

    async with AsyncClient(router.address) as client:
        with pytest.raises(UnknownModelError, match="there is: scripted"):
            await client.generate("Hi", model="other")
        with pytest.raises(UnknownRequestError):
            await client.resume("lane-9").result()

    assert router.methods == ["Generate", "Resume"]


async def test_no_router_at_all_is_told_when_patience_is_over() -> None:
    async with AsyncClient(unused_address(), patience_s=0.5) as client:
        with pytest.raises(UnavailableError, match=r"patience is 0\.5 s"):
            await client.generate("Hi")
        with pytest.raises(UnavailableError, match=r"patience is 0\.5 s"):
            await client.models()


async def test_an_expired_request_raises_with_what_there_is_of_it(start_router: StartRouter) -> None:
    router = start_router(ScriptedCluster(["half"], state=pb.REQUEST_STATE_EXPIRED, error="timeout of 1 s"))

    async with AsyncClient(router.address) as client:
        with pytest.raises(RequestExpiredError, match="expired: timeout of 1 s") as raised:
            await client.chat("Hi")
        *_, last = [event async for event in client.stream_chat("Hi")]

    assert raised.value.completion.text == "half"
    assert isinstance(last, Finished)
    assert last.state is RequestState.EXPIRED


async def test_leaving_a_stream_cancels_nothing_and_it_can_be_resumed(start_router: StartRouter) -> None:
    router = start_router()

    async with AsyncClient(router.address) as client:
        async with client.stream("Hi") as stream:
            begun = [await anext(stream) for _ in range(6)]
            assert stream.request_id is not None
        rest = await client.resume(stream.request_id, stream.cursor).result()

    assert "".join(event.text for event in begun if isinstance(event, Tokens)) + rest.text == TEXT
    assert "Cancel" not in router.methods


@pytest.mark.parametrize("pause_after", [1, 6])
async def test_cancelling_a_stream_ends_its_request(start_router: StartRouter, pause_after: int) -> None:
    router = start_router(pause_after=pause_after)

    async with AsyncClient(router.address) as client, client.stream("Hi") as stream:
        if pause_after > 1:
            await anext(stream)
            await paused(router)
        await stream.cancel()
        with pytest.raises(RequestCancelledError) as raised:
            await stream.result()

    assert raised.value.completion.text == TEXT[: max(0, pause_after - 3)]


async def test_closing_wakes_a_reader_in_another_task(start_router: StartRouter) -> None:
    router = start_router(pause_after=2)

    async with AsyncClient(router.address) as client:
        stream = client.stream("Hi")
        reader = asyncio.create_task(stream.result())
        await paused(router)
        await asyncio.sleep(0.05)
        await stream.close()
        with pytest.raises(StreamClosedError):
            await reader

    with pytest.raises(StreamClosedError, match="client is closed"):
        await client.models()


async def test_closing_wakes_a_reader_that_waits_for_another_try() -> None:
    async with AsyncClient(unused_address()) as client:
        stream = client.stream("Hi")
        reader = asyncio.create_task(stream.result())
        await asyncio.sleep(0.3)
        await stream.close()
        with pytest.raises(StreamClosedError):
            await asyncio.wait_for(reader, 10)


async def test_a_cancelled_reader_is_cancelled(start_router: StartRouter) -> None:
    router = start_router(pause_after=2)

    async with AsyncClient(router.address) as client:
        reader = asyncio.create_task(client.generate("Hi"))
        await paused(router)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader


async def test_what_is_not_to_be_stored_is_forgotten_once_its_end_was_read(start_router: StartRouter) -> None:
    router = start_router()

    async with AsyncClient(router.address) as client:
        gone = await client.generate("Hi", store=False)
        router.faults = [Fault(after=99), Fault()]
        await client.generate("Hi", store=False)

    assert router.cluster.forgotten == [gone.request_id]


async def test_background_requests_are_handed_over_and_fetched_later(start_router: StartRouter) -> None:
    router = start_router(faults=[Fault()])

    async with AsyncClient(router.address) as client:
        accepted = await client.submit("Hi")
        await client.submit_chat("Hi")
        completion = await client.resume(accepted.request_id).result()

    assert completion.text == TEXT


async def test_calls_about_requests_and_models_are_tried_again(start_router: StartRouter) -> None:
    router = start_router()
    async with AsyncClient(router.address) as client:
        request_id = (await client.generate("Hi")).request_id
        router.faults = [Fault(), Fault(code=grpc.StatusCode.DEADLINE_EXCEEDED)]

        status = await client.get_request(request_id)
        await client.forget(request_id)
        cancelled = await client.cancel(request_id)
        (model,) = await client.models()
        tokens = await client.tokenize("abc")

        assert (await client.tokenize_chat("ab")).token_ids == (97, 98)
        assert await client.detokenize(tokens.token_ids) == "abc"

    assert router.methods[1:6] == ["GetRequest"] * 3 + ["Forget", "Cancel"]
    assert (status.state, cancelled.state) == (RequestState.DONE, RequestState.CANCELLED)
    assert model.name == "scripted"


async def test_health_is_told_of_every_router(start_router: StartRouter) -> None:
    well, gone = start_router(), unused_address()

    async with AsyncClient([well.address, gone]) as client:
        health = {entry.endpoint: entry for entry in await client.health(timeout_s=5)}

    assert health[well.address].serving
    assert health[gone].status == "UNREACHABLE"


async def test_many_streams_run_side_by_side(start_router: StartRouter) -> None:
    cluster = ScriptedCluster()
    routers = [start_router(cluster, faults=[Fault(after=n) for n in (3, 7, 0)]) for _ in range(2)]

    async with AsyncClient([router.address for router in routers]) as client:
        completions = await asyncio.gather(*(client.generate("Hi") for _ in range(24)))

    assert [completion.text for completion in completions] == [TEXT] * 24
    assert len(cluster.requests) == 24


async def test_who_wants_to_know_hears_that_a_stream_reconnects(start_router: StartRouter) -> None:
    router, heard = start_router(faults=[Fault(after=6)]), list[Retry]()

    async with AsyncClient(router.address, on_retry=heard.append) as client:
        completion = await client.generate("Hi")

    assert completion.text == TEXT
    assert [(retry.method, retry.outage_s) for retry in heard] == [("Generate", 0.0)]
