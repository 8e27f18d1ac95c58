"""The Admin service over gRPC: deploying tells what it does, refusals name their field, and two routers agree."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from shardline_cluster.access.access_rules import AccessRules
from shardline_cluster.access.api_key import ApiKey
from shardline_cluster.access.keyring import Keyring
from shardline_cluster.fleet.memory_record_store import MemoryRecordStore
from shardline_protos import admin_pb2
from shardline_protos import generation_pb2 as pb
from shardline_protos.admin_pb2_grpc import AdminStub
from tests.cluster.router.router_bench import RouterBench, RunningRouter, open_bench, request

SIMULATED = admin_pb2.EngineOptions(engine="simulated", max_model_len=128)


@asynccontextmanager
async def _routers(number: int) -> AsyncIterator[tuple[RouterBench, list[RunningRouter]]]:
    """Routers without keys, over one store."""
    keyring = Keyring(AccessRules(), MemoryRecordStore[ApiKey]())
    async with open_bench() as bench:
        await keyring.start()
        yield bench, [await bench.start_router(keyring) for _ in range(number)]
    await keyring.close()


def _admin(router: RunningRouter) -> Any:
    return AdminStub(router.channel)  # type: ignore[no-untyped-call]


async def _apply(router: RunningRouter, **fields: Any) -> admin_pb2.Deployment:
    events = [event async for event in _admin(router).ApplyDeployment(admin_pb2.ApplyDeploymentRequest(**fields))]
    deployed: admin_pb2.Deployment = events[-1].deployment
    return deployed


async def test_what_is_deployed_through_one_router_is_served_by_it_at_once() -> None:
    async with _routers(1) as (_, (router,)):
        deployed = await _apply(router, name="second", replicas=3, options=SIMULATED)
        models = (await router.stub.ListModels(pb.ListModelsRequest())).models
        stream = router.stub.Generate(request(model="second"))
        accepted = await stream.read()

    assert (deployed.name, deployed.replicas, deployed.max_model_len) == ("second", 3, 128)
    assert [(model.name, model.desired_replicas) for model in models] == [("bytes", 1), ("second", 3)]
    assert accepted.accepted.model == "second"


async def test_changes_through_two_routers_at_once_are_all_made() -> None:
    async with _routers(2) as (bench, routers):
        await _apply(routers[0], name="second", options=SIMULATED)
        names = [f"model-{number}" for number in range(6)]
        await asyncio.gather(
            *(_apply(routers[i % 2], name=name, options=SIMULATED) for i, name in enumerate(names)),
            *(
                _admin(router).ScaleDeployment(admin_pb2.ScaleDeploymentRequest(name="second", replicas=number))
                for number, router in enumerate(routers, 5)
            ),
        )
        listed = [(await _admin(r).ListDeployments(admin_pb2.ListDeploymentsRequest())).deployments for r in routers]
        stored = await bench.store.all()

    assert listed[0] == listed[1]
    assert [deployment.name for deployment in listed[0]] == ["bytes", *names, "second"]
    assert stored["second"].value is not None
    assert stored["second"].value.num_replicas in (5, 6)


async def test_a_refusal_names_its_field_for_programs_too() -> None:
    async with _routers(1) as (bench, (router,)):
        before = await bench.store.all()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await _apply(router, model="m.gguf", options=admin_pb2.EngineOptions(max_num_seqs=0))
        after = await bench.store.all()

    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details() == "options.max_num_seqs is 0, but must be 1 to 2147483648"
    assert ("invalid-field", "options.max_num_seqs") in tuple(raised.value.trailing_metadata())
    assert after == before


@pytest.mark.parametrize(
    ("method", "message", "code"),
    [
        ("DeleteDeployment", admin_pb2.DeleteDeploymentRequest(name="absent"), grpc.StatusCode.NOT_FOUND),
        ("ScaleDeployment", admin_pb2.ScaleDeploymentRequest(name="absent", replicas=1), grpc.StatusCode.NOT_FOUND),
        ("ListReplicas", admin_pb2.ListReplicasRequest(deployment="absent"), grpc.StatusCode.NOT_FOUND),
        ("DrainReplica", admin_pb2.DrainReplicaRequest(incarnation="absent"), grpc.StatusCode.NOT_FOUND),
        ("DrainReplica", admin_pb2.DrainReplicaRequest(), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_each_refusal_has_its_code(method: str, message: Any, code: grpc.StatusCode) -> None:
    async with _routers(1) as (_, (router,)):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await getattr(_admin(router), method)(message)

    assert raised.value.code() is code


@pytest.mark.parametrize("method", ["ApplyDeployment", "ScaleDeployment"])
async def test_bytes_that_are_no_message_are_the_clients_fault(method: str) -> None:
    async with _routers(1) as (_, (router,)):
        path = f"/shardline.v1.Admin/{method}"
        make: Any = router.channel.unary_stream if method == "ApplyDeployment" else router.channel.unary_unary
        call = make(path, request_serializer=bytes, response_deserializer=bytes)(b"\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await (call.read() if method == "ApplyDeployment" else call)

    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "malformed" in (raised.value.details() or "")


async def test_a_deployment_that_was_taken_away_is_unknown_at_once() -> None:
    async with _routers(1) as (_, (router,)):
        await _apply(router, name="second", options=SIMULATED)
        await _admin(router).DeleteDeployment(admin_pb2.DeleteDeploymentRequest(name="second"))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await router.stub.Generate(request(model="second")).read()

    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
