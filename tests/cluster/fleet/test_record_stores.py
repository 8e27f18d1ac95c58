"""Records in Redis and in memory keep one contract: the higher revision wins, and a deletion is a record."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import Enum

import pytest

from shardline_cluster.errors import ConfigurationError, QueueUnavailableError
from shardline_cluster.fleet.memory_record_store import MemoryRecordStore
from shardline_cluster.fleet.redis_record_store import RedisRecordStore
from shardline_cluster.fleet.remembered_records import TOMBSTONE_KEPT_MS
from shardline_cluster.fleet.versioned_records import RecordStore, Versioned, next_revision
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections
from tests.cluster.queue.redis_servers import running_server, server_binaries


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Flower:
    name: str
    colours: frozenset[Colour] = frozenset()


ROSE = Flower("rösé", frozenset({Colour.RED, Colour.BLUE}))
NOW_MS = 1_800_000_000_000

KINDS = ["memory", *(pytest.param(kind, marks=pytest.mark.redis) for kind in server_binaries())]


@pytest.fixture(scope="module")
def server_urls() -> Iterator[Callable[[str], str]]:
    """Servers by kind; each starts when it is first asked for."""
    urls: dict[str, str] = {}
    with ExitStack() as stack:

        def url(kind: str) -> str:
            if kind not in urls:
                urls[kind] = stack.enter_context(running_server(server_binaries()[kind])).url
            return urls[kind]

        yield url


@pytest.fixture(params=KINDS)
async def store(
    request: pytest.FixtureRequest, server_urls: Callable[[str], str]
) -> AsyncIterator[RecordStore[Flower]]:
    if request.param == "memory":
        yield MemoryRecordStore[Flower]()
        return
    redis = RedisRecordStore(server_urls(request.param), key=f"t-{request.node.name}", kind=Flower, call_timeout_s=20)
    yield redis
    await redis.close()


async def test_nothing_is_there_at_first(store: RecordStore[Flower]) -> None:
    assert await store.all() == {}


async def test_a_record_comes_back_as_it_was_put(store: RecordStore[Flower]) -> None:
    stands = await store.put("röse", Versioned(7, ROSE))

    assert stands == Versioned(7, ROSE)
    assert await store.all() == {"röse": Versioned(7, ROSE)}


async def test_what_has_changed_between_two_looks_is_seen(store: RecordStore[Flower]) -> None:
    await store.put("a", Versioned(1, ROSE))
    await store.put("b", Versioned(1, ROSE))
    first = await store.all()

    await store.put("a", Versioned(2, Flower("x")))
    await store.put("b", Versioned(NOW_MS, None))

    assert first == {"a": Versioned(1, ROSE), "b": Versioned(1, ROSE)}
    assert await store.all() == {"a": Versioned(2, Flower("x")), "b": Versioned(NOW_MS, None)}


async def test_only_a_higher_revision_replaces(store: RecordStore[Flower]) -> None:
    await store.put("a", Versioned(7, ROSE))

    same, lower = await store.put("a", Versioned(7, Flower("x"))), await store.put("a", Versioned(6, None))
    higher = await store.put("a", Versioned(10, Flower("y")))

    assert same == lower == Versioned(7, ROSE)
    assert higher == Versioned(10, Flower("y"))
    assert await store.all() == {"a": Versioned(10, Flower("y"))}


async def test_a_writer_who_has_not_read_the_last_change_is_told_it(store: RecordStore[Flower]) -> None:
    await store.put("a", Versioned(7, ROSE))
    changed = await store.put("a", Versioned(10, Flower("mine")), known=7)

    late = await store.put("a", Versioned(11, Flower("theirs")), known=7)
    informed = await store.put("a", Versioned(12, Flower("theirs")), known=10)

    assert late == changed == Versioned(10, Flower("mine"))
    assert informed == Versioned(12, Flower("theirs"))


async def test_a_deletion_is_a_record_that_an_older_one_does_not_revive(store: RecordStore[Flower]) -> None:
    deleted: Versioned[Flower] = Versioned(next_revision(NOW_MS, NOW_MS), None)
    await store.put("a", Versioned(NOW_MS, ROSE))
    await store.put("a", deleted)

    stands = await store.put("a", Versioned(NOW_MS, ROSE))

    assert stands == deleted
    assert await store.all() == {"a": deleted}


async def test_of_many_writers_at_once_one_stands_and_all_are_told_which(store: RecordStore[Flower]) -> None:
    told = await asyncio.gather(*(store.put("a", Versioned(1, Flower(str(index)))) for index in range(20)))

    assert len(set(told)) == 1
    assert (await store.all())["a"] == told[0]


async def test_a_tombstone_whose_time_is_over_goes_with_the_next_write(store: RecordStore[Flower]) -> None:
    long_ago = 1_000_000_000_000
    await store.put("old", Versioned(long_ago, Flower("kept")))
    await store.put("gone", Versioned(long_ago, None))

    await store.put("new", Versioned(long_ago + TOMBSTONE_KEPT_MS, ROSE))

    assert set(await store.all()) == {"old", "new"}


@asynccontextmanager
async def _raw(url: str) -> AsyncIterator[RedisConnections]:
    connections = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=20)
    yield connections
    await connections.close()


@pytest.mark.redis
@pytest.mark.parametrize(("text", "told"), [('7 {"name":"a","size":3}', "size"), ('{"name":"a"}', "revision")])
async def test_what_another_version_wrote_is_an_error_and_no_guess(
    text: str, told: str, server_urls: Callable[[str], str]
) -> None:
    url = server_urls(next(iter(server_binaries())))
    store = RedisRecordStore(url, key=f"t-{told}", kind=Flower, call_timeout_s=20)
    async with _raw(url) as raw:
        await raw.execute("HSET", f"t-{told}", "new", text)

    with pytest.raises(ConfigurationError, match=told):
        await store.all()
    await store.close()


@pytest.mark.redis
async def test_a_key_of_another_type_is_told_as_unavailable(server_urls: Callable[[str], str]) -> None:
    url = server_urls(next(iter(server_binaries())))
    store = RedisRecordStore(url, key="t-string", kind=Flower, call_timeout_s=20)
    async with _raw(url) as raw:
        await raw.execute("SET", "t-string", "x")

    with pytest.raises(QueueUnavailableError, match="t-string"):
        await store.put("a", Versioned(1, ROSE))
    await store.close()


async def test_a_server_that_is_away_is_told_as_unavailable() -> None:
    redis = RedisRecordStore("unix:///nowhere/redis.sock", key="t", kind=Flower)
    memory = MemoryRecordStore[Flower]()
    memory.is_down = True

    with pytest.raises(QueueUnavailableError, match="nowhere"):
        await redis.all()
    with pytest.raises(QueueUnavailableError, match="memory"):
        await memory.put("a", Versioned(1, ROSE))
