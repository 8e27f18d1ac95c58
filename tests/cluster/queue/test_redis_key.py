"""One key of a real server: what is done to it, and how a refusal is told."""

from collections.abc import AsyncIterator

import pytest

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.queue.redis_key import RedisKey
from tests.cluster.queue.redis_servers import RedisServers, server_binaries
from tests.cluster.queue.redis_servers import redis_servers as redis_servers

pytestmark = pytest.mark.redis


@pytest.fixture(params=list(server_binaries()))
async def key(request: pytest.FixtureRequest, redis_servers: RedisServers) -> AsyncIterator[RedisKey]:
    key = RedisKey(redis_servers.url(request.param), "test:key", timeout_s=20)
    await key.execute("DEL")
    yield key
    await key.execute("DEL")
    await key.close()


async def test_commands_and_scripts_have_the_key_first(key: RedisKey) -> None:
    await key.execute("HSET", "field", "1")
    added = await key.evaluate("return redis.call('HINCRBY', KEYS[1], ARGV[1], 4)", "field")

    assert (added, await key.execute("HGETALL")) == (5, [b"field", b"5"])


async def test_what_the_server_refuses_names_the_key_and_may_be_tried_again(key: RedisKey) -> None:
    await key.execute("SET", "of another program")

    for refused in (key.execute("HGETALL"), key.evaluate("return redis.call('HGETALL', KEYS[1])")):
        with pytest.raises(QueueUnavailableError, match=r"refused to handle test:key \(.*: try again"):
            await refused
