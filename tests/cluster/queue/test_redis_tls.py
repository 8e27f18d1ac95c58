"""Redis over TLS and with users, on a real server: what works, and what is said of what does not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shardline_cluster.errors import ConfigurationError, QueueUnavailableError
from shardline_cluster.queue.counted_lanes import CountedLanes
from shardline_cluster.queue.durability import Durability
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections
from shardline_cluster.queue.redis_tls import with_tls_files
from shardline_cluster.queue.server_check import check_server
from tests.certificates import Authority
from tests.cluster.queue.guarded_redis import GuardedRedis, guarded_redis

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedRedis]:
    with guarded_redis(tmp_path_factory.mktemp("guarded")) as server:
        yield server


async def _set(url: str, key: str) -> object:
    connections = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=20.0)
    try:
        return await connections.execute("SET", key, "1")
    finally:
        await connections.close()


async def test_the_documented_user_passes_the_check_of_serve(redis: GuardedRedis) -> None:
    await check_server(redis.url(), Durability.RELAXED)


@pytest.mark.parametrize("user", ["mute", "reader", "unscripted", "deaf", "blind", "stranger"])
async def test_a_user_that_may_not_do_enough_is_refused_by_the_check(redis: GuardedRedis, user: str) -> None:
    with pytest.raises(ConfigurationError, match=r"its user may not do what Shardline needs \(.*security\.md"):
        await check_server(redis.url(user=user), Durability.RELAXED)


async def test_a_prefix_of_somebody_elses_is_refused_by_the_check(redis: GuardedRedis) -> None:
    with pytest.raises(ConfigurationError, match="its user may not do what Shardline needs"):
        await check_server(redis.url(), Durability.RELAXED, prefix="another")


async def test_the_documented_user_finds_the_lanes_in_which_something_was_used(redis: GuardedRedis) -> None:
    await _set(redis.url(), "shardline:v1:{lane-1}:usage")
    counted = CountedLanes(redis.url(), prefix="shardline", call_timeout_s=20.0)

    names = await counted.names()
    await counted.close()

    assert names == ("lane-1",)


async def test_the_documented_user_has_the_keys_of_the_prefix_and_no_others(redis: GuardedRedis) -> None:
    assert await _set(redis.url(), "shardline:v1:x") == b"OK"
    with pytest.raises(QueueUnavailableError, match="lets this user in, but not do what Shardline needs"):
        await _set(redis.url(), "else:x")


async def test_what_the_server_refuses_is_told_without_the_password(redis: GuardedRedis, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger").pair()
    other_ca = f"?ssl_ca_certs={Authority(tmp_path, 'other').file}"
    only_ca = f"?ssl_ca_certs={redis.authority.file}"
    bare = redis.url(files=False)
    for url, told in (
        (redis.url(password="wrong"), "refuses this user and password"),
        (redis.url(user="nobody"), "refuses this user and password"),
        (redis.url(user="stranger"), "lets this user in, but not do what Shardline needs"),
        (bare, "certificate comes from a CA that is not trusted here"),
        (bare + other_ca, "certificate comes from a CA that is not trusted here"),
        (bare.replace("localhost", "127.0.0.1") + only_ca, "certificate is for another name"),
        (bare + only_ca, "wants a client's certificate|wants another client's certificate"),
        (with_tls_files(bare + only_ca, ca=None, cert=str(stranger.cert), key=str(stranger.key)), "certificate"),
        (redis.url(scheme="redis", files=False).replace(str(redis.plain_port), str(redis.tls_port)), "with rediss://"),
    ):
        with pytest.raises(QueueUnavailableError, match=told) as refused:
            await _set(url, "shardline:x")
        assert "a-pass" not in str(refused.value)


async def test_tls_to_a_plain_port_is_suspected(redis: GuardedRedis) -> None:
    url = redis.url().replace(str(redis.tls_port), str(redis.plain_port))
    connections = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=0.2)

    with pytest.raises(QueueUnavailableError, match="if it speaks plain text there, name its TLS port"):
        await connections.execute("PING")


def test_files_that_will_not_do_are_told_before_a_connection(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.pair(), authority.pair()

    for url, told in (
        ("rediss://h:1?ssl_ca_certs=/gone.pem", r"CA file /gone\.pem for TLS to Redis cannot be read: No such file"),
        (f"rediss://h:1?ssl_certfile={one.cert}&ssl_keyfile={other.key}", r"cannot be used \(key values mismatch\)"),
        (f"redis://h:1?ssl_ca_certs={authority.file}", "so it must begin with rediss://"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            RedisAddress.parse(url)


def test_files_of_flags_become_options_of_the_url() -> None:
    assert with_tls_files("rediss://h:1/0", ca="/a b", cert=None, key=None) == "rediss://h:1/0?ssl_ca_certs=%2Fa+b"
    assert with_tls_files("rediss://h?x=1", ca=None, cert="c", key="k") == "rediss://h?x=1&ssl_certfile=c&ssl_keyfile=k"
    assert with_tls_files("unix:///s", ca=None, cert=None, key=None) == "unix:///s"
    with pytest.raises(ConfigurationError, match="does not begin with rediss://"):
        with_tls_files("redis://h:1", ca="/a", cert=None, key=None)
    with pytest.raises(ConfigurationError, match="give both, or neither"):
        with_tls_files("rediss://h:1", ca=None, cert="c", key=None)
