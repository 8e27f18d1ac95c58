"""Real clients with keys of two tenants over gRPC: who is let in, what he sees, and how his streams end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from shardline_cluster.access.access_rules import AccessRules
from shardline_cluster.access.api_key import ApiKey, Scope
from shardline_cluster.access.keyring import Keyring
from shardline_cluster.fleet.memory_record_store import MemoryRecordStore
from shardline_cluster.fleet.versioned_records import Versioned
from shardline_cluster.queue.answers import Snapshot
from shardline_cluster.queue.records import RequestState
from shardline_cluster.router.admin.admin_service import AdminService
from shardline_cluster.router.generation_service import GenerationService
from shardline_cluster.router.open_inference.service import OpenInferenceService
from shardline_protos import admin_pb2
from shardline_protos import generation_pb2 as pb
from shardline_protos import open_inference_pb2 as oip
from shardline_protos.admin_pb2_grpc import AdminServicer, AdminStub
from shardline_protos.generation_pb2_grpc import GenerationServicer
from shardline_protos.open_inference_pb2_grpc import GRPCInferenceServiceServicer, GRPCInferenceServiceStub
from tests.cluster.access.known_keys import NOW_MS, Clock, a_key, a_secret
from tests.cluster.router.open_inference_requests import infer_request
from tests.cluster.router.router_bench import (
    RouterBench,
    RunningRouter,
    next_of_kind,
    open_bench,
    read_all,
    request,
    text_of,
)
from tests.cluster.router.scripted_leader import LENGTH

OPS = a_key("ops", scopes=frozenset({Scope.ADMIN}))


class _World:
    """A router whose operator has a key of a flag, and whose store holds one for each of two tenants."""

    def __init__(self, bench: RouterBench, router: RunningRouter, keyring: Keyring, clock: Clock) -> None:
        self.bench = bench
        self.router = router
        self.keyring = keyring
        self.clock = clock
        self.admin = AdminStub(router.channel)  # type: ignore[no-untyped-call]

    async def revoke(self, key_id: str) -> None:
        await self.admin.RevokeKey(admin_pb2.RevokeKeyRequest(id=key_id), metadata=_shown("ops"))

    async def begun(self, key_id: str, **fields: Any) -> tuple[Any, str]:
        """A stream of this key, with its request claimed."""
        stream = self.router.stub.Generate(request(**fields), metadata=_shown(key_id))
        await next_of_kind(stream, "queued")
        return stream, await self.bench.claim()


def _shown(key_id: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {a_secret(key_id)}"),)


@asynccontextmanager
async def _open_world(rules: AccessRules) -> AsyncIterator[_World]:
    clock = Clock()
    store = MemoryRecordStore[ApiKey](now_ms=clock)
    for name in ("a", "b"):
        await store.put(name, Versioned(NOW_MS, a_key(name)))
    keyring = Keyring(rules, store, now_ms=clock)
    async with open_bench() as bench:
        await keyring.start()
        yield _World(bench, await bench.start_router(keyring), keyring, clock)
    await keyring.close()


@pytest.fixture
async def world() -> AsyncIterator[_World]:
    async with _open_world(AccessRules(flag_keys=(OPS,))) as world:
        yield world


async def _error(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await (read_all(call) if hasattr(call, "read") else call)
    return raised.value


def _methods() -> list[Any]:
    """Every method that a router serves, of all its services."""
    services: list[tuple[Any, Any, Any]] = [
        (pb.DESCRIPTOR.services_by_name["Generation"], GenerationService, GenerationServicer),
        (oip.DESCRIPTOR.services_by_name["GRPCInferenceService"], OpenInferenceService, GRPCInferenceServiceServicer),
        (admin_pb2.DESCRIPTOR.services_by_name["Admin"], AdminService, AdminServicer),
    ]
    return [
        pytest.param(method, id=method.name)
        for described, service, bare in services
        for method in described.methods
        if getattr(service, method.name) is not getattr(bare, method.name)
    ]


@pytest.mark.parametrize("method", _methods())
async def test_no_method_answers_a_stranger(world: _World, method: Any) -> None:
    channel = world.router.channel
    both, answers = channel.stream_stream, channel.unary_stream if method.server_streaming else channel.unary_unary
    call: Any = (both if method.client_streaming else answers)(f"/{method.containing_service.full_name}/{method.name}")
    request: Any = iter([b""]) if method.client_streaming else b""

    without = await _error(call(request))
    wrong = await _error(call(request, metadata=_shown("nobody")))

    assert (without.code(), wrong.code()) == (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAUTHENTICATED)
    assert "authorization: Bearer KEY" in str(without.details())
    assert a_secret("nobody") not in str(wrong)


async def test_health_and_reflection_ask_for_no_key(world: _World) -> None:
    health: Any = HealthStub(world.router.channel)
    reflection: Any = ServerReflectionStub(world.router.channel)  # type: ignore[arg-type]

    answer = await health.Check(health_pb2.HealthCheckRequest())
    asked = reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    (listed,) = [answer async for answer in asked]

    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert "shardline.v1.Admin" in {service.name for service in listed.list_services_response.service}


@pytest.mark.parametrize("request_", [b"\xff\xff", b"\x0a\x80\x80\x04" + b"x" * 65_536], ids=["malformed", "long"])
async def test_strangers_cannot_fill_log_or_memory_through_health_and_reflection(
    world: _World, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    channel: Any = world.router.channel
    calls: list[Any] = [
        channel.unary_unary("/grpc.health.v1.Health/Check")(request_),
        channel.unary_stream("/grpc.health.v1.Health/Watch")(request_),
        channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")(iter([request_])),
    ]

    errors = [await _error(call) for call in calls]

    assert [error.code() for error in errors] == [grpc.StatusCode.INVALID_ARGUMENT] * 3
    assert "at most 4096 are allowed" in str(errors[0].details()) or "malformed" in str(errors[0].details())
    assert caplog.text == ""


async def test_a_key_does_what_its_scopes_allow_and_no_more(world: _World) -> None:
    tenant = await _error(world.admin.ListKeys(admin_pb2.ListKeysRequest(), metadata=_shown("a")))
    operator = await _error(world.router.stub.Generate(request(), metadata=_shown("ops")))

    assert (tenant.code(), operator.code()) == (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.PERMISSION_DENIED)
    assert "the key a lacks the scope 'admin'" in str(tenant.details())
    assert "the key ops lacks the scope 'generate'" in str(operator.details())


async def test_of_two_keys_none_counts(world: _World) -> None:
    refused = await _error(world.admin.ListKeys(admin_pb2.ListKeysRequest(), metadata=(*_shown("a"), *_shown("ops"))))

    assert refused.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "`authorization` is there 2 times: show one key" in str(refused.details())


async def test_callers_without_a_key_may_generate_and_no_more_where_they_are_allowed() -> None:
    async with _open_world(AccessRules(allow_unauthenticated=True)) as world:
        stream = world.router.stub.Generate(request())
        await next_of_kind(stream, "queued")
        request_id = await world.bench.claim()
        refused = await _error(world.admin.ListKeys(admin_pb2.ListKeysRequest()))
        wrong = await _error(world.router.stub.Generate(request(), metadata=_shown("nobody")))

        looked = await world.bench.queue().look(request_id, "default")

    assert isinstance(looked.value, Snapshot)
    assert refused.code() is grpc.StatusCode.PERMISSION_DENIED
    assert wrong.code() is grpc.StatusCode.UNAUTHENTICATED


# --- tenants ---------------------------------------------------------------------------------------------------------


async def test_another_tenants_request_is_not_found_exactly_as_one_that_never_was(world: _World) -> None:
    _, theirs = await world.begun("a")
    never = theirs[:-4] + ("0000" if not theirs.endswith("0000") else "1111")

    for method, kind in (
        ("Resume", pb.ResumeRequest),
        ("Cancel", pb.CancelRequest),
        ("GetRequest", pb.GetRequestRequest),
        ("Forget", pb.ForgetRequest),
    ):
        call = getattr(world.router.stub, method)
        other = await _error(call(kind(request_id=theirs), metadata=_shown("b")))
        unknown = await _error(call(kind(request_id=never), metadata=_shown("b")))

        assert other.code() is unknown.code() is grpc.StatusCode.NOT_FOUND, method
        assert str(other.details()).replace(theirs, "ID") == str(unknown.details()).replace(never, "ID"), method

    own = await world.router.stub.GetRequest(pb.GetRequestRequest(request_id=theirs), metadata=_shown("a"))
    assert own.state == pb.REQUEST_STATE_RUNNING


async def test_the_tenant_comes_from_the_key_and_from_nothing_that_a_client_says(world: _World) -> None:
    said = (*_shown("a"), ("tenant", "tenant-b"), ("x-tenant", "tenant-b"), ("x-shardline-tenant", "tenant-b"))
    stream = world.router.stub.Generate(request(metadata={"tenant": "tenant-b"}), metadata=said)
    await next_of_kind(stream, "queued")
    request_id = await world.bench.claim()

    looked = await world.bench.queue().look(request_id, "tenant-a")

    assert isinstance(looked.value, Snapshot)


async def test_idempotency_keys_of_two_tenants_do_not_meet(world: _World) -> None:
    _, first = await world.begun("a", text="one", idempotency_key="k")
    _, second = await world.begun("b", text="another", idempotency_key="k")
    again = world.router.stub.Generate(request("one", idempotency_key="k"), metadata=_shown("a"))

    accepted = await next_of_kind(again, "accepted")

    assert first != second
    assert accepted.request_id == first


# --- keys that end ---------------------------------------------------------------------------------------------------


async def test_a_revoked_key_ends_its_streams_and_no_other_and_its_request_lives_on(world: _World) -> None:
    stream, request_id = await world.begun("a", on_disconnect=pb.OnDisconnect(keep_going=True))
    other, other_id = await world.begun("b")
    await world.bench.say(request_id, "one")
    await next_of_kind(stream, "tokens")

    await world.revoke("a")
    ended = await _error(stream)
    await world.bench.say(other_id, "on", finish=LENGTH)
    events = await read_all(other)
    await world.bench.say(request_id, " two", finish=LENGTH)
    later = await _error(world.router.stub.Resume(pb.ResumeRequest(request_id=request_id), metadata=_shown("a")))
    looked = await world.bench.queue().look(request_id, "tenant-a")

    assert ended.code() is later.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "the key a was revoked" in str(ended.details())
    assert text_of(events) == "on"
    assert isinstance(looked.value, Snapshot) and looked.value.state is RequestState.DONE


async def test_a_revoked_key_ends_streams_and_answers_of_the_open_inference_protocol(world: _World) -> None:
    stub: Any = GRPCInferenceServiceStub(world.router.channel)  # type: ignore[no-untyped-call]
    stream = stub.ModelStreamInfer(metadata=_shown("a"))
    await stream.write(infer_request("one", stream=True))
    request_id = await _claimed(world)
    await world.bench.say(request_id, "1")
    first = await stream.read()
    answer = stub.ModelInfer(infer_request("two"), metadata=_shown("a"))
    await _claimed(world)

    await world.revoke("a")
    refusals = [await _error(stream.read()), await _error(answer)]

    assert first.infer_response.outputs
    assert [error.code() for error in refusals] == [grpc.StatusCode.UNAUTHENTICATED] * 2
    assert all("the key a was revoked" in str(error.details()) for error in refusals)


async def test_each_request_of_an_open_stream_has_the_limits_that_its_key_has_by_then(world: _World) -> None:
    stub: Any = GRPCInferenceServiceStub(world.router.channel)  # type: ignore[no-untyped-call]
    stream = stub.ModelStreamInfer(metadata=_shown("a"))
    for _ in range(2):
        await stream.write(infer_request("one"))
        await world.bench.say(await _claimed(world), "1", finish=LENGTH)
        assert not (await stream.read()).error_message

    limits = admin_pb2.Limits(requests_per_minute=1)
    await world.admin.UpdateKey(admin_pb2.UpdateKeyRequest(id="a", limits=limits), metadata=_shown("ops"))
    await stream.write(infer_request("one"))
    await world.bench.say(await _claimed(world), "1", finish=LENGTH)
    allowed = await stream.read()
    await stream.write(infer_request("one"))
    refused = await stream.read()

    assert not allowed.error_message
    assert "the key a may use 1 requests a minute" in refused.error_message


async def _claimed(world: _World) -> str:
    """Waits until there is a request, and claims it."""
    while True:
        if granted := await world.bench.leader.claim():
            return granted[0].info.id
        await asyncio.sleep(0.01)


async def test_a_key_can_revoke_itself(world: _World) -> None:
    made = await world.admin.CreateKey(admin_pb2.CreateKeyRequest(scopes=["admin"]), metadata=_shown("ops"))
    own = (("authorization", f"Bearer {made.secret}"),)

    await world.admin.RevokeKey(admin_pb2.RevokeKeyRequest(id=made.key.id), metadata=own)

    refused = await _error(world.admin.ListKeys(admin_pb2.ListKeysRequest(), metadata=own))
    assert f"the key {made.key.id} was revoked" in str(refused.details())


async def test_the_successor_of_a_key_goes_on_where_the_old_one_was_cut_off(world: _World) -> None:
    stream, request_id = await world.begun("a")
    await world.bench.say(request_id, "one")
    seen = await next_of_kind(stream, "tokens")
    made = await world.admin.CreateKey(admin_pb2.CreateKeyRequest(tenant="tenant-a"), metadata=_shown("ops"))

    await world.revoke("a")
    await _error(stream)
    ask = pb.ResumeRequest(request_id=request_id, cursor=seen.cursor)
    resumed = world.router.stub.Resume(ask, metadata=(("authorization", f"Bearer {made.secret}"),))
    await next_of_kind(resumed, "started")
    await world.bench.say(request_id, " two", finish=LENGTH)
    events = await read_all(resumed)

    assert text_of(events) == " two"


async def test_a_key_that_expires_ends_its_streams(world: _World) -> None:
    update = admin_pb2.UpdateKeyRequest(id="a", expires_in=Duration(seconds=60))
    await world.admin.UpdateKey(update, metadata=_shown("ops"))
    stream, _ = await world.begun("a")

    world.clock.now_ms += 60_000
    world.keyring.gate.shut_out()  # as its watch does each second

    ended = await _error(stream)
    assert ended.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "the key a expired at 2027-01-15T08:01:00Z" in str(ended.details())
