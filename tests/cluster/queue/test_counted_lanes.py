"""Lanes with usage are found whatever else lies in the server, and whatever clients call their requests."""

import secrets

import pytest

from shardline_cluster.queue.counted_lanes import CountedLanes
from shardline_cluster.queue.redis_request_queue import RedisRequestQueue
from shardline_cluster.queue.terms import QueueTerms
from tests.cluster.queue.lane_calls import a_submission
from tests.cluster.queue.redis_servers import RedisServers, server_binaries

CALL_TIMEOUT_S = 20.0


@pytest.mark.redis
@pytest.mark.parametrize("kind", list(server_binaries()))
async def test_every_lane_of_the_prefix_is_found_and_nothing_else(kind: str, redis_servers: RedisServers) -> None:
    url, prefix = redis_servers.url(kind), f"pre[f]ix*-{secrets.token_hex(4)}"
    lanes = CountedLanes(url, prefix=prefix, call_timeout_s=CALL_TIMEOUT_S)
    before = await lanes.names()
    for part, lane in ((prefix, "one"), (prefix, "two"), (prefix.replace("*", "x"), "other"), (prefix, "idle")):
        queue = RedisRequestQueue(url, lane, prefix=part, terms=QueueTerms())
        await queue.open_on_new_server()
        submission = a_submission((await queue.view()).identity, id=f"{lane}-1", idempotency_key="{x}:usage")
        await queue.submit("router", 1, submission)
        if lane != "idle":
            await queue.cancel(submission.id, submission.tenant)
        await queue.close()

    found = await lanes.names()
    await lanes.close()

    assert (before, found) == ((), ("one", "two"))
