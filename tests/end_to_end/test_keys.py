"""Keys and two tenants on a whole cluster with TLS: wrong, expired, revoked in mid-stream, forgotten by Redis."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shardline import AsyncClient, TlsOptions
from shardline.errors import TlsError, UnauthenticatedError, UnknownRequestError
from shardline.results import RequestState
from shardline_cluster.queue.lane_names import keys_key
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections
from tests.certificates import ROUTER_NAME, Authority
from tests.end_to_end.served_cluster import ROUTER, ServedCluster, served_cluster
from tests.end_to_end.streams import Heard, hear

pytestmark = [pytest.mark.process, pytest.mark.redis, pytest.mark.timeout(120)]

OPERATOR = "sesame-of-the-operator"
FILED, SUCCESSOR = "sesame-of-the-file-1", "sesame-of-the-file-2"
SERVE = ("--engine", "simulated", "--launcher", "local", "--simulated-step-s", "0.02", "--routers", "2")
SHUT_OUT_WITHIN_S = 20.0  # five are promised on a machine that is not loaded
NUM_PROBES = 16  # each connection finds either of two routers: all but one of 32,768 times these find both
KNOWN_WITHIN_S = 30.0  # two are promised on a machine that is not loaded


@dataclass(frozen=True, slots=True)
class _World:
    cluster: ServedCluster
    keys_file: Path
    tls: TlsOptions

    def client(self, secret: str | None) -> AsyncClient:
        return AsyncClient(self.cluster.endpoint, api_key=secret, tls=self.tls)

    def keys(self, *arguments: str) -> str:
        """`shardline keys …`, which finds the operator's key in its environment; what it prints."""
        done = self.cluster.command("keys", *arguments, "--name", self.cluster.name)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def create(self, tenant: str, *arguments: str) -> tuple[str, str]:
        """A new key: its id and its secret."""
        made = json.loads(self.keys("create", "--tenant", tenant, "--json", *arguments))
        return made["id"], made["secret"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_World]:
    folder = tmp_path_factory.mktemp("keys")
    keys_file, authority = folder / "keys.jsonl", Authority(folder)
    _write(keys_file, FILED)
    own = authority.pair()
    files = ("--api-keys-file", keys_file, "--tls-cert", own.cert, "--tls-key", own.key)
    with served_cluster(*SERVE, *map(str, files), environment={"SHARDLINE_API_KEY": OPERATOR}) as cluster:
        yield _World(cluster, keys_file, TlsOptions(ca=authority.file, server_name=ROUTER_NAME))


def _write(keys_file: Path, secret: str) -> None:
    keys_file.touch(mode=0o600)
    keys_file.write_text(json.dumps({"id": "filed", "key": secret, "tenant": "filed"}) + "\n")


async def _known_everywhere(world: _World, secret: str) -> None:
    """Waits until both routers know a key."""
    await _until(lambda: _is_let_in_everywhere(world, secret))


async def _is_let_in_everywhere(world: _World, secret: str) -> bool:
    return all(await _probe(world, secret))


async def _is_refused_everywhere(world: _World, secret: str) -> bool:
    return not any(await _probe(world, secret))


async def _probe(world: _World, secret: str) -> list[bool]:
    return await asyncio.gather(*(_is_let_in(world, secret) for _ in range(NUM_PROBES)))


async def _is_let_in(world: _World, secret: str | None) -> bool:
    async with world.client(secret) as client:
        try:
            await client.models()
        except UnauthenticatedError:
            return False
    return True


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + KNOWN_WITHIN_S
    while not await holds():
        assert time.monotonic() < deadline, f"it did not come about within {KNOWN_WITHIN_S} s"
        await asyncio.sleep(0.1)


async def _refusal(world: _World, secret: str | None) -> str:
    async with world.client(secret) as client:
        with pytest.raises(UnauthenticatedError) as raised:
            await client.generate("hi", max_tokens=1)
    return str(raised.value)


async def test_nobody_comes_in_without_a_good_key_and_no_process_but_serve_holds_a_secret(world: _World) -> None:
    told = [await _refusal(world, secret) for secret in (None, "sesame-of-a-stranger")]
    async with AsyncClient(world.cluster.endpoint, api_key=FILED) as in_plain_text:
        with pytest.raises(TlsError, match="it speaks TLS there, and this client plain text"):
            await in_plain_text.generate("hi", max_tokens=3)
    async with world.client(FILED) as client:
        completion = await client.generate("hi", max_tokens=3)

    assert "no key was shown" in told[0] and "authorization: Bearer KEY" in told[0]
    assert "not known here" in told[1] and "sesame" not in told[1]
    assert completion.usage.completion_tokens == 3
    routers = world.cluster.pids(ROUTER)
    assert len(routers) == 2
    assert _who_tells(world.cluster, b"sesame") == [world.cluster.process.pid]
    assert "sesame" not in world.cluster.log


def _who_tells(cluster: ServedCluster, secret: bytes) -> list[int]:
    """The processes in whose environment or command line it stands."""
    told = {
        pid: Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        for pid in cluster.all_pids()
    }
    return [pid for pid, text in told.items() if secret in text]


async def test_two_tenants_see_nothing_of_each_other_and_a_revoked_key_ends_its_streams(world: _World) -> None:
    key_id, secret = world.create("one")
    _, other_secret = world.create("two")
    for made in (secret, other_secret):
        await _known_everywhere(world, made)

    async with world.client(secret) as one, world.client(other_secret) as two:
        heard, other = Heard(), Heard()
        stream = one.stream("tell", max_tokens=1000, ignore_eos=True, on_disconnect="continue")
        other_stream = two.stream("tell", max_tokens=1000, ignore_eos=True)
        await asyncio.gather(hear(stream, until_tokens=20, into=heard), hear(other_stream, until_tokens=20, into=other))
        request_id = str(stream.request_id)
        for foreign in (two.get_request(request_id), two.cancel(request_id), two.forget(request_id)):
            with pytest.raises(UnknownRequestError, match="does not exist"):
                await foreign
        with pytest.raises(UnknownRequestError, match="does not exist"):
            await hear(two.resume(request_id))

        await asyncio.to_thread(world.keys, "revoke", key_id)
        began = time.monotonic()
        with pytest.raises(UnauthenticatedError, match=f"the key {key_id} was revoked") as raised:
            await hear(stream, into=heard)
        took_s = time.monotonic() - began
        going_on = await two.get_request(str(other_stream.request_id))
        await hear(other_stream, until_tokens=len(going_on.outputs[0].token_ids) + 10, into=other)
        await two.cancel(str(other_stream.request_id))
        await hear(other_stream, into=other)

    assert took_s < SHUT_OUT_WITHIN_S
    assert (raised.value.request_id, bool(raised.value.cursor)) == (request_id, True), "another key could go on here"
    assert heard.finished is None and heard.num_tokens < 1000
    assert other.finished is not None and other.finished.state is RequestState.CANCELLED
    await _until(lambda: _is_refused_everywhere(world, secret))  # the other router looks a moment later


async def test_an_expired_key_is_told_since_when(world: _World) -> None:
    key_id, secret = world.create("brief", "--expires-in", "1s")

    await _until(lambda: _is_expired(world, secret))

    assert f"the key {key_id} expired at 20" in await _refusal(world, secret)


async def _is_expired(world: _World, secret: str) -> bool:
    async with world.client(secret) as client:
        try:
            await client.models()
        except UnauthenticatedError as error:
            return "expired" in str(error)
    return False


async def test_a_redis_that_forgets_everything_revives_no_key_and_loses_none(world: _World) -> None:
    dead_id, dead = world.create("dead")
    _, living = world.create("living")
    for secret in (dead, living):  # a router that never met a key could not tell of it what became of it
        await _known_everywhere(world, secret)
    world.keys("revoke", dead_id)
    await _until(lambda: _is_refused_everywhere(world, dead))

    async with _redis(world) as redis:
        before = await redis.execute("HGETALL", keys_key("shardline"))
        await redis.execute("FLUSHALL")
        await _until(lambda: _holds(redis, before))

    assert await _is_let_in(world, living)
    assert f"the key {dead_id} was revoked" in await _refusal(world, dead)


@asynccontextmanager
async def _redis(world: _World) -> AsyncIterator[RedisConnections]:
    connections = RedisConnections(RedisAddress.parse(world.cluster.run_file.redis_url), size=1, timeout_s=20)
    yield connections
    await connections.close()


async def _holds(redis: RedisConnections, before: Sequence[Any]) -> bool:
    now = await redis.execute("HGETALL", keys_key("shardline"))
    return sorted(zip(now[::2], now[1::2], strict=True)) == sorted(zip(before[::2], before[1::2], strict=True))


async def test_a_key_of_the_file_is_rotated_without_a_restart(world: _World) -> None:
    routers = world.cluster.pids(ROUTER)

    _write(world.keys_file, SUCCESSOR)
    await _known_everywhere(world, SUCCESSOR)
    await _until(lambda: _is_refused_everywhere(world, FILED))

    assert "the key filed was taken out of the keys file" in await _refusal(world, FILED)
    assert world.cluster.pids(ROUTER) == routers
