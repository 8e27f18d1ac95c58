"""What tenants have used, for operators: read of every lane in which something was counted."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from shardline_cluster.queue.request_queue import RequestQueue
from shardline_cluster.queue.tenant_usage import TenantUsage
from shardline_protos import admin_pb2 as pb


class UsageAdministration:
    """The core behind `Admin.GetUsage`."""

    def __init__(
        self, lanes: Callable[[], Awaitable[Sequence[str]]], open_queue: Callable[[str], RequestQueue]
    ) -> None:
        """`lanes` names them, those of deleted deployments too; a queue is opened for a single question, and closed."""
        self._lanes = lanes
        self._open_queue = open_queue

    async def get(self, request: pb.GetUsageRequest) -> pb.GetUsageResponse:
        """Usage by tenant and lane; of one tenant where the request names it.

        Raises:
            QueueUnavailableError: not every lane has answered, and a part would be taken for the whole.
        """
        lanes = await self._lanes()
        told = await asyncio.gather(*(self._of(lane) for lane in lanes))
        rows = [(used, lane) for lane, usage in zip(lanes, told, strict=True) for used in usage]
        wanted = [(used, lane) for used, lane in rows if request.tenant in ("", used.tenant)]
        wanted.sort(key=lambda row: (row[0].tenant, row[1]))
        return pb.GetUsageResponse(usage=[_told(used, lane) for used, lane in wanted])

    async def _of(self, lane: str) -> Sequence[TenantUsage]:
        queue = self._open_queue(lane)
        try:
            return (await queue.usage()).value
        finally:
            await queue.close()


def _told(used: TenantUsage, lane: str) -> pb.TenantUsage:
    return pb.TenantUsage(
        tenant=used.tenant,
        lane=lane,
        requests_done=used.requests_done,
        requests_cancelled=used.requests_cancelled,
        requests_expired=used.requests_expired,
        requests_failed=used.requests_failed,
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
    )
