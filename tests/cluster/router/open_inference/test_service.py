"""The Open Inference Protocol over real gRPC: a router on loopback, the queue in memory, a scripted leader."""

import asyncio
import time
from typing import Any

import grpc
import grpc.aio
import pytest

from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_cluster.queue.answers import Snapshot
from shardline_cluster.queue.calls import Member, MemberRole
from shardline_cluster.queue.records import RequestState
from shardline_protos import open_inference_pb2 as oip
from shardline_protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.cluster.router.open_inference_requests import infer_request, is_final, tensor_of, texts_of
from tests.cluster.router.router_bench import CONTEXT, MODEL, RouterBench, RunningRouter
from tests.cluster.router.scripted_leader import LENGTH, STOP

SERVICE = "/inference.GRPCInferenceService"


@pytest.fixture
def stub(router: RunningRouter) -> Any:
    return GRPCInferenceServiceStub(router.channel)  # type: ignore[no-untyped-call]


async def _claimed(bench: RouterBench) -> str:
    """Waits until there is a request, and claims it."""
    deadline = time.monotonic() + 20
    while True:
        if granted := await bench.leader.claim():
            return granted[0].info.id
        assert time.monotonic() < deadline, "no request came"
        await asyncio.sleep(0.01)


async def _becomes(bench: RouterBench, request_id: str, state: RequestState) -> None:
    deadline = time.monotonic() + 20
    while True:
        value = (await bench.queue().look(request_id, "default")).value
        if isinstance(value, Snapshot) and value.state is state:
            return
        assert time.monotonic() < deadline, f"the request did not become {state}"
        await asyncio.sleep(0.01)


async def _error(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


async def _ready_replica(bench: RouterBench, name: str = MODEL) -> None:
    status = to_json(ReplicaStatus(deployment=name, replica="r-0", state=ReplicaState.READY))
    await bench.queue().register(Member(incarnation="leader-1", role=MemberRole.LEADER, status=status))


# --- one answer ------------------------------------------------------------------------------------------------------


async def test_a_request_gets_its_whole_text_with_all_sequences(bench: RouterBench, stub: Any) -> None:
    call = stub.ModelInfer(infer_request("hey", sampling={"n": 2}, id="7", return_finish_reason=True))
    request_id = await _claimed(bench)

    await bench.say(request_id, "ab", sequence=0)
    await bench.say(request_id, "cd", sequence=1, finish=LENGTH)
    await bench.say(request_id, "e", sequence=0, finish=STOP)
    response = await call

    assert texts_of(response) == ["heyabe", "heycd"]
    assert tensor_of(response, "finish_reason") == ["stop", "length"]
    assert (response.model_name, response.model_version, response.id) == (MODEL, "1", "7")
    assert not response.parameters


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        (infer_request(""), "text_input", "is empty"),
        (infer_request("x" * CONTEXT), "text_input", f"has {CONTEXT} tokens"),
        (infer_request(sampling={"temperature": -1}), "sampling_parameters.temperature", "is -1.0: must be 0 … 10"),
        (infer_request(parameters={"top_p": 2.0}), "parameters.top_p", "must be more than 0"),
        (infer_request(sampling={"n": 0}), "sampling_parameters.n", "must be 1"),
        (infer_request(sampling='{"\\ud800": 1}'), "sampling_parameters.\\ud800", "is not known"),
        (infer_request(parameters={"priority": 101}), "parameters.priority", "must be -100 … 100"),
        (infer_request(parameters={"timeout": 0}), "parameters.timeout", "is 0 s"),
        (infer_request(stream=True), "stream", "call ModelStreamInfer"),
        (
            infer_request(parameters={"triton_enable_empty_final_response": True}),
            "parameters.triton_enable_empty_final_response",
            "ModelInfer has one answer",
        ),
    ],
)
async def test_a_wrong_field_is_told_as_the_client_sent_it(
    stub: Any, request_: oip.ModelInferRequest, field: str, words: str
) -> None:
    error = await _error(stub.ModelInfer(request_))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(error.details()).startswith(field)
    assert words in str(error.details())
    assert dict(error.trailing_metadata())["invalid-field"] == field


async def test_an_unknown_model_or_version_is_not_found(stub: Any) -> None:
    unknown = await _error(stub.ModelInfer(infer_request(model="other")))
    version = await _error(stub.ModelInfer(infer_request(version="2")))

    assert (unknown.code(), version.code()) == (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.NOT_FOUND)
    assert "'other' is not deployed" in str(unknown.details())


async def test_a_request_that_runs_out_of_time_is_an_exceeded_deadline(bench: RouterBench, stub: Any) -> None:
    call = stub.ModelInfer(infer_request(parameters={"timeout": 1_000_000}))
    await _claimed(bench)

    bench.skew_ms += 1_500

    assert (await _error(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_client_that_goes_away_cancels_its_request(bench: RouterBench, stub: Any) -> None:
    call = stub.ModelInfer(infer_request())
    request_id = await _claimed(bench)

    call.cancel()

    await _becomes(bench, request_id, RequestState.CANCELLED)


# --- streams ---------------------------------------------------------------------------------------------------------


async def test_two_requests_on_one_stream_are_told_apart_and_a_wrong_one_disturbs_nobody(
    bench: RouterBench, stub: Any
) -> None:
    stream = stub.ModelStreamInfer()
    await stream.write(infer_request("a", id="a", stream=True, sampling={"max_tokens": 9}))
    first = await _claimed(bench)
    await stream.write(infer_request("b", id="b"))
    second = await _claimed(bench)
    await stream.write(infer_request("c", id="c", sampling={"max_tokens": "many"}))

    refused = await stream.read()
    await bench.say(first, "A")
    begun = await stream.read()
    await bench.say(second, "B", finish=STOP)
    whole = await stream.read()
    await bench.say(first, "AA", finish=STOP)
    ended = await stream.read()
    await stream.done_writing()

    assert refused.error_message.startswith(
        "[request id: c] INVALID_ARGUMENT: sampling_parameters.max_tokens is 'many'"
    )
    assert (refused.infer_response.id, is_final(refused.infer_response)) == ("c", True)
    told = [
        (r.infer_response.id, texts_of(r.infer_response), is_final(r.infer_response)) for r in (begun, whole, ended)
    ]
    assert told == [("a", ["A"], False), ("b", ["bB"], True), ("a", ["AA"], True)]
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_cancelling_a_stream_cancels_all_its_requests(bench: RouterBench, stub: Any) -> None:
    stream = stub.ModelStreamInfer()
    await stream.write(infer_request(stream=True))
    running = await _claimed(bench)
    await stream.write(infer_request())
    other = await _claimed(bench)
    await bench.say(running, "a")
    await stream.read()

    stream.cancel()

    await _becomes(bench, running, RequestState.CANCELLED)
    await _becomes(bench, other, RequestState.CANCELLED)


async def test_a_request_has_the_time_that_the_stream_has_left_when_it_comes(bench: RouterBench, stub: Any) -> None:
    stream = stub.ModelStreamInfer(timeout=50)
    await stream.write(infer_request())
    request_id = await _claimed(bench)

    value = (await bench.queue().look(request_id, "default")).value

    assert isinstance(value, Snapshot)
    assert value.info.deadline_ms is not None
    assert 1_000 < value.info.deadline_ms - value.info.submitted_ms <= 51_000
    stream.cancel()


async def test_a_router_that_stops_says_so_for_each_request(
    bench: RouterBench, router: RunningRouter, stub: Any
) -> None:
    stream = stub.ModelStreamInfer()
    await stream.write(infer_request(id="a", stream=True))
    await _claimed(bench)
    whole = stub.ModelInfer(infer_request())
    await _claimed(bench)

    stopping = asyncio.ensure_future(router.server.stop())
    told = await stream.read()
    error = await _error(whole)
    await stream.done_writing()
    rest = await stream.read()
    await stopping

    assert told.error_message == "[request id: a] UNAVAILABLE: this router shuts down: go on through another one"
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert rest is grpc.aio.EOF


@pytest.mark.parametrize("message", [b"\x0a\x02\xff\xfe", b"\x0a\x05hi"], ids=["no UTF-8", "cut off"])
async def test_bytes_that_are_no_request_are_the_clients_fault(router: RunningRouter, message: bytes) -> None:
    channel: Any = router.channel
    calls = [
        channel.unary_unary(f"{SERVICE}/ModelInfer")(message),
        channel.unary_unary(f"{SERVICE}/ModelReady")(message),
        channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(iter([message])).read(),
    ]
    for call in calls:
        error = await _error(call)

        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "the request is malformed" in str(error.details())


# --- what it tells of itself -----------------------------------------------------------------------------------------


async def test_a_model_is_ready_once_a_replica_of_it_is(bench: RouterBench, stub: Any) -> None:
    async def told() -> tuple[bool, bool, bool, list[tuple[str, str]]]:
        index = await stub.RepositoryIndex(oip.RepositoryIndexRequest())
        return (
            (await stub.ServerReady(oip.ServerReadyRequest())).ready,
            (await stub.ModelReady(oip.ModelReadyRequest(name=MODEL, version="1"))).ready,
            (await stub.ModelReady(oip.ModelReadyRequest(name="other"))).ready,
            [(model.name, model.state) for model in index.models],
        )

    before = await told()
    none_is_ready = await stub.RepositoryIndex(oip.RepositoryIndexRequest(ready=True))
    await _ready_replica(bench)
    after = await told()

    assert before == (False, False, False, [(MODEL, "UNAVAILABLE")])
    assert not none_is_ready.models
    assert after == (True, True, False, [(MODEL, "READY")])
    assert (await stub.ServerLive(oip.ServerLiveRequest())).live


async def test_nothing_is_ready_while_redis_is_away(bench: RouterBench, router: RunningRouter, stub: Any) -> None:
    async def ready() -> tuple[bool, bool]:
        server = await stub.ServerReady(oip.ServerReadyRequest())
        model = await stub.ModelReady(oip.ModelReadyRequest(name=MODEL))
        return server.ready, model.ready

    await _ready_replica(bench)
    before = await ready()
    bench.server.go_down()
    deadline = time.monotonic() + 20
    while await ready() != (False, False):
        assert time.monotonic() < deadline, "it is ready without a queue"

    bench.server.come_up()
    assert before == (True, True)


async def test_metadata_and_config_tell_the_same_tensors(stub: Any) -> None:
    metadata = await stub.ModelMetadata(oip.ModelMetadataRequest(name=MODEL))
    config = (await stub.ModelConfig(oip.ModelConfigRequest(name=MODEL, version="1"))).config

    assert (metadata.name, list(metadata.versions), metadata.platform) == (MODEL, ["1"], "shardline")
    assert [tensor.name for tensor in metadata.inputs] == [tensor.name for tensor in config.input]
    assert [tensor.name for tensor in metadata.outputs] == [tensor.name for tensor in config.output]
    assert [(tensor.name, tensor.data_type) for tensor in config.input if not tensor.optional] == [
        ("text_input", oip.TYPE_STRING)
    ]
    assert (config.max_batch_size, config.model_transaction_policy.decoupled) == (0, True)
    assert config.parameters["max_model_len"].string_value == str(CONTEXT)


async def test_the_server_says_who_it_is(stub: Any) -> None:
    metadata = await stub.ServerMetadata(oip.ServerMetadataRequest())

    assert (metadata.name, bool(metadata.version)) == ("shardline", True)
    assert "parameters" in metadata.extensions


async def test_questions_about_what_is_not_there_are_answered_as_such(stub: Any) -> None:
    unknown = await _error(stub.ModelMetadata(oip.ModelMetadataRequest(name="other")))
    version = await _error(stub.ModelReady(oip.ModelReadyRequest(name=MODEL, version="3")))
    repository = await _error(stub.RepositoryIndex(oip.RepositoryIndexRequest(repository_name="r")))

    assert (unknown.code(), version.code()) == (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.NOT_FOUND)
    assert repository.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "there is one repository" in str(repository.details())


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "ModelConfig", "RepositoryIndex", "ModelInfer"])
async def test_a_field_of_a_newer_protocol_is_refused(router: RunningRouter, method: str) -> None:
    channel: Any = router.channel

    error = await _error(channel.unary_unary(f"{SERVICE}/{method}")(b"\xf8\x06\x01"))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "field number 111" in str(error.details())
