"""The server of the queues in memory fails in the ways in which tests ask it to."""

import pytest

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.queue.memory_request_queue import MemoryRequestQueue, MemoryServer
from shardline_cluster.queue.published import Published, Subscribed
from tests.cluster.queue.lane_calls import TENANT, HandLeader, a_submission


async def test_a_call_whose_reply_is_lost_has_run() -> None:
    server = MemoryServer()
    queue = MemoryRequestQueue(server, "lane")
    server.lose_replies()

    with pytest.raises(QueueUnavailableError, match="lost"):
        await queue.submit("router", 1, a_submission(server.identity))

    assert (await queue.view()).value.waiting_requests == 1


async def test_messages_are_lost_one_by_one_and_a_subscription_is_confirmed_after_an_outage() -> None:
    server = MemoryServer()
    queue = MemoryRequestQueue(server, "lane")
    messages = queue.listen("router")
    assert await anext(messages) == Subscribed()
    info = a_submission(server.identity)
    await queue.submit("router", 1, info)

    server.lose_messages()
    await HandLeader(queue).claim_one()
    await queue.cancel(info.id, TENANT)
    server.go_down()
    server.come_up()

    first, second = await anext(messages), await anext(messages)
    assert isinstance(first, Published)
    assert first.end is not None
    assert second == Subscribed()


async def test_a_rollback_forgets_what_came_after_the_snapshot_and_changes_the_identity() -> None:
    server = MemoryServer()
    queue = MemoryRequestQueue(server, "lane")
    before = server.identity
    await queue.submit("router", 1, a_submission(before, 1))
    snapshot = server.snapshot()
    await queue.submit("router", 1, a_submission(before, 2))

    after = server.rollback(snapshot)

    reply = await queue.view()
    assert (reply.identity, reply.in_hold, reply.value.waiting_requests) == (after, True, 1)
    assert after != before


async def test_lanes_of_one_server_do_not_know_each_other() -> None:
    server = MemoryServer()
    one, other = MemoryRequestQueue(server, "one"), MemoryRequestQueue(server, "other")

    await one.submit("router", 1, a_submission(server.identity))

    assert (await other.view()).value.waiting_requests == 0
    assert await HandLeader(other).claim() == ()
