"""Addresses hide their passwords; a call is one attempt within its time limit."""

import asyncio

import pytest
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from shardline_cluster.errors import ConfigurationError, QueueUnavailableError
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections, is_away, parse_info
from tests.cluster.queue.redis_servers import RedisServers, server_binaries

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://user:{SECRET}@db:7000/2", "redis://db:7000/2"),
        (f"rediss://:{SECRET}@db", "rediss://db:6379"),
        ("redis://", "redis://localhost:6379"),
        (f"unix://user:{SECRET}@/run/redis.sock?db=1", "unix:///run/redis.sock"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    address = RedisAddress.parse(url)

    assert address.shown == shown
    assert SECRET not in repr(address)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"http://:{SECRET}@db", "begins with 'http'"),
        (SECRET, "begins with 'no scheme'"),
        (f"redis://:{SECRET}@db:port", "cannot be read"),
        (f"redis://:{SECRET}/half@db", "cannot be read: its port must be a number"),
        (f"redis://:12/{SECRET}@db", "has an @ behind its host"),
        (f"redis://user:12#{SECRET}@db", "has an @ behind its host"),
        (f"{SECRET}:x@db:6379", "begins with 'no scheme'"),
        (f"redis://:{SECRET}@db?colour=red", "unknown option.*colour"),
    ],
)
def test_a_url_that_is_none_is_refused_without_repeating_it(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as refusal:
        RedisAddress.parse(url)

    assert SECRET not in str(refusal.value)


def test_a_server_that_cannot_serve_is_told_from_a_wrong_command() -> None:
    away = [ReadOnlyError("READONLY"), ResponseError("MISCONF errors writing"), OSError(), TimeoutError()]
    wrong = [ResponseError("ERR unknown command"), NoScriptError("NOSCRIPT")]

    assert [is_away(error) for error in (*away, *wrong)] == [True] * 4 + [False] * 2


def test_info_is_read_as_a_mapping() -> None:
    assert parse_info(b"# Server\r\nredis_version:7.0.15\r\nuptime:1:2\r\n") == {
        "redis_version": "7.0.15",
        "uptime": "1:2",
    }


async def test_a_server_that_is_away_is_told_with_its_address() -> None:
    connections = RedisConnections(RedisAddress.parse(f"unix://:{SECRET}@/nowhere"), size=1, timeout_s=1)

    with pytest.raises(QueueUnavailableError, match=r"unix:///nowhere cannot be reached .* give its right URL") as told:
        await connections.execute("PING")

    assert SECRET not in str(told.value)
    assert "may or may not have run" not in str(told.value)


@pytest.fixture(params=list(server_binaries()))
def url(redis_servers: RedisServers, request: pytest.FixtureRequest) -> str:
    return redis_servers.url(request.param)


@pytest.mark.redis
async def test_a_call_without_an_answer_ends_after_its_time(url: str) -> None:
    connections = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=0.2)

    with pytest.raises(QueueUnavailableError, match=r"no answer within 0\.2 s"):
        await connections.execute("BLPOP", "nothing-there", 0)

    patient = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=20)
    assert await patient.execute("PING") == b"PONG"
    await connections.close()
    await patient.close()


@pytest.mark.redis
async def test_a_connection_that_broke_is_replaced_by_the_next_call(url: str) -> None:
    connections = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=20)
    other = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=20)
    number = await connections.execute("CLIENT", "ID")
    await other.execute("CLIENT", "KILL", "ID", number)

    with pytest.raises(QueueUnavailableError):
        await connections.execute("PING")

    assert await connections.execute("PING") == b"PONG"
    await connections.close()
    await other.close()


@pytest.mark.redis
async def test_a_command_that_was_given_up_leaves_no_answer_to_the_next_one(url: str) -> None:
    connections = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=20)
    await connections.execute("PING")
    waiting = asyncio.create_task(connections.execute("BLPOP", "nothing-there-either", 0))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert await connections.execute("ECHO", "next") == b"next"
    await connections.close()


@pytest.mark.redis
async def test_a_connection_in_a_call_is_closed_at_the_calls_end(url: str) -> None:
    connections = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=20)
    other = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=20)
    number = await connections.execute("CLIENT", "ID")
    waiting = asyncio.create_task(connections.execute("BLPOP", "told-later", 0))
    await asyncio.sleep(0.05)

    await connections.close()
    await other.execute("RPUSH", "told-later", "now")

    assert await waiting == [b"told-later", b"now"]
    async with asyncio.timeout(20):  # the server sees the end of a connection when it gets round to it
        while await other.execute("CLIENT", "LIST", "ID", number):  # noqa: ASYNC110 — another process's event
            await asyncio.sleep(0.01)
    await other.close()


@pytest.mark.redis
@pytest.mark.parametrize("secret", ["", ":wrong@"])
async def test_a_server_that_wants_another_password_says_what_to_do(url: str, secret: str) -> None:
    owner = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=20)
    stranger = RedisConnections(RedisAddress.parse(url.replace("://", f"://{secret}")), size=1, timeout_s=20)
    await owner.execute("CONFIG", "SET", "requirepass", "sesame")
    try:
        with pytest.raises(QueueUnavailableError, match="put the right ones into its URL") as raised:
            await stranger.execute("PING")
    finally:
        await owner.execute("CONFIG", "SET", "requirepass", "")
        await owner.close()

    assert "wrong@" not in str(raised.value)
    assert "unix://USER:PASSWORD@/PATH" in str(raised.value)


@pytest.mark.redis
@pytest.mark.parametrize(
    "command",
    [
        ("HGETALL", "x"),
        ("EVAL", "return redis.call('HGETALL', 'x')", 0),
        ("EVAL", "return redis.call('GET', 'another')", 0),
        ("EVAL", "return redis.call('SPUBLISH', 'channel', 'message')", 0),
    ],
    ids=["command", "command in a script", "key in a script", "channel in a script"],
)
async def test_a_user_who_may_not_do_enough_is_told_what_is_missing(url: str, command: tuple[str | int, ...]) -> None:
    owner = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=20)
    poor = RedisConnections(RedisAddress.parse(url.replace("://", "://poor:pw@")), size=1, timeout_s=20)
    await owner.execute("ACL", "SETUSER", "poor", "on", ">pw", "~x", "resetchannels", "+get", "+eval", "+spublish")
    try:
        with pytest.raises(QueueUnavailableError, match=r"lets this user in, but not do .*give the user all commands"):
            await poor.execute(*command)
    finally:
        await owner.execute("ACL", "DELUSER", "poor")
        await owner.close()
        await poor.close()
