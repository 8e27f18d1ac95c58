"""What is deployed is found by name and by request id, also while models load, fail to load, and go."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from shardline_cluster.access.caller import DEFAULT_TENANT
from shardline_cluster.errors import (
    ConfigurationError,
    ModelNotLoadedError,
    QueueUnavailableError,
    ShuttingDownError,
    UnknownModelError,
    UnknownRequestError,
)
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.kept_records import KeptRecords
from shardline_cluster.fleet.memory_record_store import MemoryRecordStore
from shardline_cluster.queue.memory_request_queue import MemoryRequestQueue, MemoryServer
from shardline_cluster.queue.request_ids import draw_request_id
from shardline_cluster.router import model_directory
from shardline_cluster.router.model_directory import ModelDirectory
from shardline_workers.text.simulated_text import simulated_text_model
from shardline_workers.text.text_model import TextModel
from tests.cluster.fleet.deploying import deploy, undeploy
from tests.cluster.router.router_bench import available, deployment
from tests.cluster.router.stepped_router import submission

OpenDirectory = Callable[[Callable[[Deployment], TextModel]], ModelDirectory]


def _load(wanted: Deployment) -> TextModel:
    return simulated_text_model(wanted.max_model_len)


@pytest.fixture
def store() -> MemoryRecordStore[Deployment]:
    return MemoryRecordStore[Deployment]()


@pytest.fixture
async def open_directory(store: MemoryRecordStore[Deployment]) -> AsyncIterator[OpenDirectory]:
    server, opened = MemoryServer(), []

    def open_one(load: Callable[[Deployment], TextModel]) -> ModelDirectory:
        directory = ModelDirectory(
            KeptRecords(store),
            open_queue=lambda lane: MemoryRequestQueue(server, lane),
            load=load,
            incarnation="router-1",
        )
        opened.append(directory)
        return directory

    yield open_one
    for directory in opened:
        await directory.close(ShuttingDownError("the test is over"))


async def test_a_model_is_found_by_its_name_and_by_none_where_it_is_the_only_one(
    store: MemoryRecordStore[Deployment], open_directory: OpenDirectory
) -> None:
    directory = open_directory(_load)
    await deploy(store, deployment("a", "a-1"))
    await directory.refresh()

    assert directory.find("a").deployment == directory.find("").deployment == deployment("a", "a-1")
    await deploy(store, deployment("b", "b-1"))
    await directory.refresh()
    with pytest.raises(UnknownModelError, match=r"model is empty.*a, b"):
        directory.find("")


async def test_before_the_store_has_answered_nothing_is_known_to_be_unknown(
    store: MemoryRecordStore[Deployment], open_directory: OpenDirectory
) -> None:
    directory = open_directory(_load)
    store.is_down = True
    await directory.refresh()

    with pytest.raises(QueueUnavailableError):
        directory.find("a")
    with pytest.raises(QueueUnavailableError):
        directory.of_request(draw_request_id("a-1"))
    assert not directory.available


async def test_what_is_known_stays_known_while_the_store_is_away(
    store: MemoryRecordStore[Deployment], open_directory: OpenDirectory
) -> None:
    directory = open_directory(_load)
    await deploy(store, deployment("a", "a-1"))
    await directory.refresh()
    store.is_down = True
    await directory.refresh()

    assert directory.find("a").deployment.name == "a"
    assert not directory.available


async def test_a_deployment_that_redis_has_just_forgotten_is_still_served(
    store: MemoryRecordStore[Deployment], open_directory: OpenDirectory
) -> None:
    directory = open_directory(_load)
    await deploy(store, deployment("a", "a-1"))
    await directory.refresh()
    store.forget()
    await directory.refresh()

    assert directory.find("a").deployment.name == "a"
    assert set(await store.all()) == {"a"}, "the router puts back what it remembers"


async def test_requests_of_a_deployment_that_is_gone_are_still_found(
    store: MemoryRecordStore[Deployment], open_directory: OpenDirectory
) -> None:
    directory = open_directory(_load)
    await deploy(store, deployment("a", "a-1"))
    await directory.refresh()
    await undeploy(store, "a")
    await directory.refresh()

    assert directory.of_request(draw_request_id("a-1")).streams.queue.lane == "a-1"
    with pytest.raises(UnknownModelError, match="deployed are: none"):
        directory.find("a")
    with pytest.raises(UnknownRequestError):
        directory.of_request(draw_request_id("b-1"))


@pytest.mark.parametrize("has_request", [False, True])
async def test_a_lane_that_was_left_is_closed_once_nothing_is_left_in_it_and_its_ends_are_kept_no_longer(
    store: MemoryRecordStore[Deployment],
    open_directory: OpenDirectory,
    monkeypatch: pytest.MonkeyPatch,
    *,
    has_request: bool,
) -> None:
    directory = open_directory(_load)
    await deploy(store, deployment("a", "a-1"))
    await directory.refresh()
    request_id, streams = draw_request_id("a-1"), directory.of_request(draw_request_id("a-1")).streams
    await available(streams)
    if has_request:
        await streams.submit(submission(request_id, streams.identity, background=True))
    await undeploy(store, "a")
    await directory.refresh()
    now, kept_s = asyncio.get_running_loop().time, streams.queue.terms.retention_ms / 1000

    monkeypatch.setattr(model_directory, "_now_s", lambda: now() + kept_s - 10)
    await directory.refresh()
    assert directory.of_request(request_id).streams is streams
    monkeypatch.setattr(model_directory, "_now_s", lambda: now() + kept_s + 10)
    await directory.refresh()

    if has_request:
        assert directory.of_request(request_id).streams is streams
    else:
        with pytest.raises(UnknownRequestError):
            directory.of_request(request_id)


async def test_a_request_that_ends_long_after_its_lane_was_left_can_still_be_resumed(
    store: MemoryRecordStore[Deployment], open_directory: OpenDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(model_directory, "_now_s", lambda: now_s)
    directory = open_directory(_load)
    await deploy(store, deployment("a", "a-1"))
    await directory.refresh()
    request_id = draw_request_id("a-1")
    streams = directory.of_request(request_id).streams
    await available(streams)
    _, stream = await streams.submit(submission(request_id, streams.identity))
    await undeploy(store, "a")
    await directory.refresh()
    assert stream is not None
    kept_s = streams.queue.terms.retention_ms / 1000

    now_s += 2 * kept_s
    await streams.cancel(request_id, DEFAULT_TENANT)
    await directory.refresh()
    assert directory.of_request(request_id).streams is streams, "its client is still reading"
    stream.leave()
    await directory.refresh()
    now_s += kept_s
    await directory.refresh()
    assert directory.of_request(request_id).streams is streams, "its end is still kept"
    now_s += 1
    await directory.refresh()

    with pytest.raises(UnknownRequestError):
        directory.of_request(request_id)


async def test_a_lane_that_is_deployed_again_while_it_is_looked_at_stays_open(
    store: MemoryRecordStore[Deployment], open_directory: OpenDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = open_directory(_load)
    await deploy(store, deployment("a", "a-1"))
    await directory.refresh()
    streams = directory.find("a").lane.streams
    await undeploy(store, "a")
    await directory.refresh()
    now, kept_s = asyncio.get_running_loop().time, streams.queue.terms.retention_ms / 1000

    async def is_deployed_meanwhile() -> bool:
        await deploy(store, deployment("a", "a-1"))
        await directory.refresh()
        return False

    monkeypatch.setattr(streams, "is_needed", is_deployed_meanwhile)
    monkeypatch.setattr(model_directory, "_now_s", lambda: now() + kept_s + 10)
    await directory.refresh()

    assert directory.find("a").lane.streams is streams


async def test_while_a_model_loads_it_is_unavailable_and_not_unknown(
    store: MemoryRecordStore[Deployment], open_directory: OpenDirectory
) -> None:
    may_load, asked = threading.Event(), threading.Event()

    def slowly(wanted: Deployment) -> TextModel:
        asked.set()
        assert may_load.wait(20)
        return _load(wanted)

    directory = open_directory(slowly)
    await deploy(store, deployment("a", "a-1"))
    loading = asyncio.create_task(directory.refresh())
    await asyncio.to_thread(asked.wait, 20)

    with pytest.raises(ModelNotLoadedError, match="is being loaded"):
        directory.find("a")
    with pytest.raises(ModelNotLoadedError):
        directory.of_request(draw_request_id("a-1"))
    may_load.set()
    await loading
    assert directory.find("a").deployment.name == "a"


async def test_a_model_that_cannot_be_loaded_says_why_and_is_tried_again_later(
    store: MemoryRecordStore[Deployment], open_directory: OpenDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def second_time(wanted: Deployment) -> TextModel:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ValueError("the file is cut off")
        return _load(wanted)

    directory = open_directory(second_time)
    await deploy(store, deployment("a", "a-1"))
    await directory.refresh()
    with pytest.raises(ModelNotLoadedError, match="cannot load its tokenizer: the file is cut off"):
        directory.find("a")

    await directory.refresh()  # too early for another try
    early = tries
    now = asyncio.get_running_loop().time
    monkeypatch.setattr(model_directory, "_now_s", lambda: now() + model_directory.RELOAD_PAUSE_S)
    await directory.refresh()

    assert early == 1
    assert directory.find("a").deployment.name == "a"


async def test_another_number_of_replicas_does_not_load_a_model_again(
    store: MemoryRecordStore[Deployment], open_directory: OpenDirectory
) -> None:
    loads = []
    directory = open_directory(lambda wanted: loads.append(wanted) or _load(wanted))  # type: ignore[func-returns-value]
    await deploy(store, deployment("a", "a-1"))
    await directory.refresh()
    await deploy(store, deployment("a", "a-1", num_replicas=7))
    await directory.refresh()

    assert len(loads) == 1
    assert directory.find("a").deployment.num_replicas == 7


async def test_deployments_that_cannot_be_read_change_nothing(
    store: MemoryRecordStore[Deployment], open_directory: OpenDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = open_directory(_load)
    await deploy(store, deployment("a", "a-1"))
    await directory.refresh()

    async def unreadable() -> dict[str, Deployment]:
        raise ConfigurationError("written by another version")

    monkeypatch.setattr(store, "all", unreadable)
    await directory.refresh()

    assert directory.find("a").deployment.name == "a"


async def test_a_fault_in_one_round_does_not_end_the_watching(
    store: MemoryRecordStore[Deployment],
    open_directory: OpenDirectory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(model_directory, "POLL_S", 0.01)
    second = threading.Event()
    tries = 0

    def load(wanted: Deployment) -> TextModel:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise RuntimeError("a fault that nobody thought of")
        second.set()
        return _load(wanted)

    directory = open_directory(load)
    await deploy(store, deployment("a", "a-1"))

    directory.start()

    assert await asyncio.to_thread(second.wait, 20)
    assert "a fault that nobody thought of" in caplog.text
