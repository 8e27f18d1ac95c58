"""Asks routers by grpc.health.v1 whether they serve."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
from grpc_health.v1 import health_pb2

POLL_S = 0.1
ANSWER_S = 1.0


async def wait_until_serving(target: str, *, within_s: float) -> bool:
    """Whether a router at `target` says SERVING within that time."""
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            async with asyncio.timeout(within_s):
                while True:
                    if await _serves(check):
                        return True
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            return False


async def _serves(check: Callable[..., Awaitable[health_pb2.HealthCheckResponse]]) -> bool:
    try:
        answer = await check(health_pb2.HealthCheckRequest(service=""), timeout=ANSWER_S, wait_for_ready=True)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
