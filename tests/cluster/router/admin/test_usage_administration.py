"""What operators are told of usage: every tenant and lane, each request once, or nothing at all."""

import pytest

from shardline_cluster.access.access_rules import AccessRules
from shardline_cluster.access.api_key import ApiKey, Scope
from shardline_cluster.access.keyring import Keyring
from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.fleet.memory_record_store import MemoryRecordStore
from shardline_cluster.queue.memory_request_queue import MemoryRequestQueue, MemoryServer
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.admin.usage_administration import UsageAdministration
from shardline_protos import admin_pb2 as pb
from shardline_protos.admin_pb2_grpc import AdminStub
from tests.cluster.access.known_keys import a_key, a_secret, showing
from tests.cluster.queue.lane_calls import a_submission
from tests.cluster.router.router_bench import LANE, RouterBench, next_of_kind, read_all, request
from tests.cluster.router.scripted_leader import STOP


class TwoLanes:
    """Lanes `a` and `b` of one server, in which requests are cancelled as soon as they wait."""

    def __init__(self) -> None:
        self.server = MemoryServer(QueueTerms.short())
        self.usage = UsageAdministration(self.server.counted_lanes, self.queue)

    def queue(self, lane: str) -> MemoryRequestQueue:
        return MemoryRequestQueue(self.server, lane)

    async def use(self, lane: str, tenant: str, number: int) -> None:
        submission = a_submission(self.server.identity, number, tenant=tenant, prompt_tokens=7)
        await self.queue(lane).submit("router", 1, submission)
        await self.queue(lane).cancel(submission.id, tenant)

    async def rows(self, tenant: str = "") -> list[tuple[str, str, int, int]]:
        told = (await self.usage.get(pb.GetUsageRequest(tenant=tenant))).usage
        return [(used.tenant, used.lane, used.requests_cancelled, used.prompt_tokens) for used in told]


async def test_usage_is_told_by_tenant_and_lane() -> None:
    lanes = TwoLanes()
    for number, (lane, tenant) in enumerate([("b", "x"), ("a", "y"), ("a", "x"), ("a", "x")]):
        await lanes.use(lane, tenant, number)

    assert await lanes.rows() == [("x", "a", 2, 14), ("x", "b", 1, 7), ("y", "a", 1, 7)]
    assert await lanes.rows("y") == [("y", "a", 1, 7)]
    assert await lanes.rows("nobody") == []


async def test_a_part_is_never_told_for_the_whole() -> None:
    lanes = TwoLanes()
    await lanes.use("a", "x", 1)
    lanes.server.lose_replies()

    with pytest.raises(QueueUnavailableError):
        await lanes.rows()


async def test_an_operator_sees_what_a_tenants_streams_were_told(bench: RouterBench) -> None:
    ops, tenant = a_key("ops", scopes=frozenset({Scope.ADMIN})), a_key("a")
    keyring = Keyring(AccessRules(flag_keys=(ops, tenant)), MemoryRecordStore[ApiKey]())
    await keyring.start()
    router = await bench.start_router(keyring)
    shown, operators = (tuple(showing(a_secret(name)).items()) for name in ("a", "ops"))
    admin = AdminStub(router.channel)  # type: ignore[no-untyped-call]
    told = []
    for text in ("one", "two and more"):
        stream = router.stub.Generate(request("hello"), metadata=shown)
        await next_of_kind(stream, "queued")
        await bench.say(await bench.claim(), text, finish=STOP)
        told.append((await read_all(stream))[-1].finished.usage)

    response = await admin.GetUsage(pb.GetUsageRequest(), metadata=operators)
    await keyring.close()

    assert list(response.usage) == [
        pb.TenantUsage(
            tenant="tenant-a",
            lane=LANE,
            requests_done=2,
            prompt_tokens=sum(usage.prompt_tokens for usage in told),
            completion_tokens=sum(usage.completion_tokens for usage in told),
        )
    ]
    assert response.usage[0].completion_tokens == len("one" + "two and more")
