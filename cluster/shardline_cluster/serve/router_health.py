"""Asks routers by grpc.health.v1 whether they serve."""

import asyncio

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

POLL_S = 0.1
ANSWER_S = 1.0


async def wait_until_serving(target: str, *, within_s: float) -> bool:
    """Whether a router at `target` says SERVING within that time."""
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        try:
            async with asyncio.timeout(within_s):
                while not await _serves(health):
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            return False
    return True


async def _serves(health: health_pb2_grpc.HealthStub) -> bool:
    request = health_pb2.HealthCheckRequest(service="")
    try:
        answer = await health.Check(request, timeout=ANSWER_S, wait_for_ready=True)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
