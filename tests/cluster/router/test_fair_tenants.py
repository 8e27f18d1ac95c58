"""Tenants come from keys, and share the replicas: who has a hundred requests waiting does not starve the others."""

import asyncio

from shardline_cluster.access.api_key import KeyLimits
from shardline_protos import generation_pb2 as pb
from tests.cluster.queue.lane_calls import STOP, HandLeader, some
from tests.cluster.router.limited_gate import LimitedGate, showing
from tests.cluster.router.router_bench import RunningRouter, next_of_kind, open_bench, request

FLOOD = 100
PLACES = 4  # of the only replica
SHORT = pb.SamplingParams(max_tokens=10)


async def submit(router: RunningRouter, tenant: str) -> None:
    """One request that waits in the background."""
    stream = router.stub.Generate(request(sampling=SHORT, background=True), metadata=showing(tenant))
    await next_of_kind(stream, "accepted")


async def test_a_tenant_with_a_hundred_waiting_requests_does_not_starve_another() -> None:
    async with open_bench() as bench:
        router = await bench.start_router(gate=LimitedGate(flood=KeyLimits(), drop=KeyLimits()))
        leader = HandLeader(bench.queue())
        await asyncio.gather(*(submit(router, "flood") for _ in range(FLOOD)))
        running = list(await leader.claim(free_slots=PLACES))
        for _ in range(3):
            await submit(router, "drop")

        served: list[str] = []
        for _ in range(6):
            ended = running.pop(0)
            await leader.commit(ended, some(0, range(10), STOP))
            claimed = await leader.claim(free_slots=1)
            served += [granted.info.submission.tenant for granted in claimed]
            running += claimed

        assert served[0] == "drop", "whoever has nothing running comes first"
        assert served.count("drop") == 3, "and has his half of the places while he has something waiting"
