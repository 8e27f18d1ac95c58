"""A generation service whose queue fails, is full, forgets, or whose router goes away."""

import time
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from shardline_cluster.access.open_gate import OpenGate
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.kept_records import KeptRecords
from shardline_cluster.queue.answers import Snapshot
from shardline_cluster.queue.calls import LaneBounds
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.model_directory import ModelDirectory
from shardline_cluster.router.router_config import RouterConfig
from shardline_cluster.router.router_server import RouterServer
from shardline_protos import generation_pb2 as pb
from tests.cluster.router.router_bench import (
    RouterBench,
    RunningRouter,
    next_of_kind,
    read_all,
    request,
    text_of,
)
from tests.cluster.router.scripted_leader import STOP
from tests.cluster.router.service_calls import begun, details_of, error_of, eventually, trailing


async def test_a_lost_message_is_delivered_within_the_silence(bench: RouterBench, router: RunningRouter) -> None:
    stream, request_id = await begun(bench, router, request())
    bench.server.lose_messages()
    await bench.say(request_id, "a", finish=STOP)
    began_s = time.monotonic()

    events = await read_all(stream)

    assert text_of(events) == "a"
    assert time.monotonic() - began_s < 10


async def test_while_the_queue_is_away_new_work_is_refused_and_open_streams_stay(
    bench: RouterBench, router: RunningRouter
) -> None:
    stream, request_id = await begun(bench, router, request())
    bench.server.go_down()
    bench.store.is_down = True

    async def is_refused() -> bool:
        error = await error_of(router.stub.Generate(request(), timeout=10))
        return error.code() is grpc.StatusCode.UNAVAILABLE and trailing(error, "retry-after-ms") == "1000"

    await eventually(is_refused)
    assert await _health(router) == health_pb2.HealthCheckResponse.NOT_SERVING
    bench.server.come_up()
    bench.store.is_down = False
    await bench.say(request_id, "back", finish=STOP)

    assert text_of(await read_all(stream)) == "back"


async def test_a_stream_goes_on_over_a_server_that_forgot_its_last_tokens(
    bench: RouterBench, router: RunningRouter
) -> None:
    stream, request_id = await begun(bench, router, request())
    snapshot = bench.server.snapshot()
    await bench.say(request_id, "abc")
    await next_of_kind(stream, "tokens")
    bench.server.rollback(snapshot)

    async def is_restored() -> bool:
        value = (await bench.queue().look(request_id, "default")).value
        return isinstance(value, Snapshot) and value.logs[0].num_tokens == 3

    await eventually(is_restored)
    bench.skew_ms += bench.server.terms.hold_ms
    await bench.say(request_id, "def", finish=STOP)

    assert text_of(await read_all(stream)) == "def"


async def test_a_full_lane_names_its_bound_and_when_to_come_again(bench: RouterBench, router: RunningRouter) -> None:
    await bench.queue().configure(LaneBounds(max_waiting_requests=1))
    await read_all(router.stub.Generate(request(background=True)))

    error = await error_of(router.stub.Generate(request(background=True)))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "max_waiting_requests is 1" in str(error.details())
    assert int(str(trailing(error, "retry-after-ms"))) > 0
    (detail,) = details_of(error).details
    assert detail.type_url == "type.googleapis.com/google.rpc.RetryInfo"


async def test_an_error_about_something_enormous_still_arrives(router: RunningRouter) -> None:
    error = await error_of(router.stub.Cancel(pb.CancelRequest(request_id="😀" * 5_000)))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details_of(error).message == error.details()
    assert "😀😀😀" in str(error.details())


async def test_a_request_that_no_replica_can_hold_is_refused(bench: RouterBench, router: RunningRouter) -> None:
    await bench.queue().configure(LaneBounds(largest_request_tokens=100))

    error = await error_of(router.stub.Generate(request("hi", sampling=pb.SamplingParams(max_tokens=99))))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "101 tokens" in str(error.details())


async def _health(router: RunningRouter, service: str = "shardline.v1.Generation") -> int:
    stub: Any = HealthStub(router.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


async def test_health_is_told_for_the_server_and_for_each_service(router: RunningRouter) -> None:
    async def serves() -> bool:
        names = ("", "shardline.v1.Generation", "inference.GRPCInferenceService")
        return {await _health(router, name) for name in names} == {health_pb2.HealthCheckResponse.SERVING}

    await eventually(serves)


async def test_reflection_lists_the_services(router: RunningRouter) -> None:
    channel: Any = router.channel
    stub: Any = ServerReflectionStub(channel)
    ask = reflection_pb2.ServerReflectionRequest(list_services="")

    answers = [answer async for answer in stub.ServerReflectionInfo(iter([ask]))]

    names = {service.name for service in answers[0].list_services_response.service}
    assert {"shardline.v1.Generation", "inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names


async def test_a_router_that_stops_sends_its_clients_elsewhere_and_their_requests_live_on(
    bench: RouterBench, router: RunningRouter
) -> None:
    ask = request(on_disconnect=pb.OnDisconnect(cancel=True))
    stream, request_id = await begun(bench, router, ask)
    await bench.say(request_id, "abc")
    seen = await next_of_kind(stream, "tokens")
    other = await bench.start_router()

    began_s = time.monotonic()
    await router.server.stop()
    error = await error_of(stream)
    resumed = other.stub.Resume(pb.ResumeRequest(request_id=request_id, cursor=seen.cursor))
    await next_of_kind(resumed, "started")
    await bench.say(request_id, "def", finish=STOP)

    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - began_s < 10
    assert text_of(await read_all(resumed)) == "def"


async def test_a_port_that_is_taken_is_a_clear_error(bench: RouterBench, router: RunningRouter) -> None:
    directory = ModelDirectory(KeptRecords(bench.store), open_queue=bench.queue, load=_never, incarnation="router-x")
    config = RouterConfig(port=router.port, redis_url="", terms=QueueTerms.short(), cache_folder="")

    with pytest.raises(ConfigurationError, match="the port is taken"):
        await RouterServer(config, directory, OpenGate()).start()


def _never(_: object) -> Any:
    raise AssertionError("nothing is loaded")
