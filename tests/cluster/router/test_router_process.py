"""The router as a process: how it starts, what it says, how it ends; and two of them over one Redis."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from shardline_cluster.fleet.deployment_records import deployments_on_redis
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.queue.durability import Durability
from shardline_cluster.queue.embedded_server import EmbeddedServer
from shardline_cluster.queue.records import SequenceFinish
from shardline_cluster.queue.redis_request_queue import RedisRequestQueue
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.router_config import RouterConfig
from shardline_protos import generation_pb2 as pb
from shardline_protos.generation_pb2_grpc import GenerationStub
from tests.cluster.router.router_bench import LANE, MODEL, deployment, next_of_kind, read_all, request, text_of
from tests.cluster.router.scripted_leader import ScriptedLeader

ROOT = Path(__file__).parents[3]
SOURCES = os.pathsep.join(str(ROOT / name) for name in ("protos", "workers", "cluster"))


class _Processes:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []

    def config(self, **changes: Any) -> str:
        fields: dict[str, Any] = {
            "port": 0,
            "redis_url": f"unix://{self.folder}/nobody.sock",
            "terms": QueueTerms.short(),
            "cache_folder": str(self.folder),
        }
        return to_json(RouterConfig(**(fields | changes)))

    def start(self, config: str | None) -> subprocess.Popen[str]:
        environment = {"PYTHONPATH": SOURCES, "PATH": os.environ["PATH"], "HOME": str(self.folder)}
        process = subprocess.Popen(
            [sys.executable, "-m", "shardline_cluster.router.router_process"],
            env=environment | ({} if config is None else {"SHARDLINE_ROUTER_CONFIG": config}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def start_listening(self, **changes: Any) -> tuple[subprocess.Popen[str], int]:
        process = self.start(self.config(**changes))
        assert process.stdout is not None
        return process, int(json.loads(process.stdout.readline())["port"])

    def close(self) -> None:
        for process in self._started:
            with suppress(ProcessLookupError):
                process.kill()
            process.communicate()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[_Processes]:
    processes = _Processes(tmp_path)
    yield processes
    processes.close()


@pytest.mark.process
def test_it_tells_its_port_and_ends_soon_and_well_after_sigterm_even_without_redis(processes: _Processes) -> None:
    process, port = processes.start_listening()
    with socket.create_connection(("127.0.0.1", port), timeout=20):
        pass

    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)

    assert process.wait(30) == 0
    assert time.monotonic() - begun < 10


@pytest.mark.process
def test_a_taken_port_is_said_in_words_and_with_the_exit_code(processes: _Processes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = processes.start(processes.config(port=taken.getsockname()[1]))
        output, error = process.communicate(timeout=50)

    assert process.returncode not in (0, None)
    assert "the port is taken" in error
    assert "Traceback" not in error
    assert output == ""


@pytest.mark.process
@pytest.mark.parametrize(
    ("config", "words"), [(None, "SHARDLINE_ROUTER_CONFIG is not set"), ("{}", "this is no RouterConfig")]
)
def test_a_missing_or_wrong_configuration_is_said_in_words(
    processes: _Processes, config: str | None, words: str
) -> None:
    process = processes.start(config)

    _, error = process.communicate(timeout=50)

    assert process.returncode not in (0, None)
    assert words in error
    assert "Traceback" not in error


@pytest.mark.process
def test_two_routers_can_share_a_port(processes: _Processes) -> None:
    _, port = processes.start_listening(reuse_port=True)

    _, second = processes.start_listening(reuse_port=True, port=port)

    assert second == port


@pytest.fixture
async def redis_url(tmp_path: Path) -> AsyncIterator[str]:
    server = EmbeddedServer.start(None, Durability.RELAXED, root=tmp_path / "r")
    yield server.url
    server.stop()


@pytest.mark.process
@pytest.mark.redis
async def test_a_router_killed_in_the_middle_of_an_emoji_is_replaced_by_another_one(
    processes: _Processes, redis_url: str
) -> None:
    terms = QueueTerms.short()
    records = deployments_on_redis(redis_url, prefix="shardline")
    await records.change(MODEL, lambda _: deployment())
    queue = RedisRequestQueue(redis_url, LANE, prefix="shardline", terms=terms)
    leader = ScriptedLeader(queue)
    first, first_port = processes.start_listening(redis_url=redis_url)
    _, second_port = processes.start_listening(redis_url=redis_url)
    smile = "😀".encode()

    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{first_port}") as one,
        grpc.aio.insecure_channel(f"127.0.0.1:{second_port}") as other,
    ):
        stream, request_id = await _begun(one, leader)
        await leader.commit(request_id, tuple(b"a" + smile[:2]))
        seen = await next_of_kind(stream, "tokens")
        first.kill()
        with pytest.raises(grpc.aio.AioRpcError):
            await read_all(stream)
        ask = pb.ResumeRequest(request_id=request_id, cursor=seen.cursor)
        resumed = GenerationStub(other).Resume(ask, wait_for_ready=True)  # type: ignore[no-untyped-call]
        await next_of_kind(resumed, "started")
        await leader.commit(request_id, tuple(smile[2:]), finish=SequenceFinish("stop"))
        events = await read_all(resumed)

    assert seen.tokens.text == "a"
    assert text_of(events) == "😀"
    await queue.close()
    await records.close()


async def _begun(channel: grpc.aio.Channel, leader: ScriptedLeader) -> tuple[Any, str]:
    """A stream whose request was accepted, as soon as the router has found the model, and claimed."""
    deadline = time.monotonic() + 40
    while True:
        stream = GenerationStub(channel).Generate(request(), wait_for_ready=True)  # type: ignore[no-untyped-call]
        try:
            accepted = await next_of_kind(stream, "accepted")
            break
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE, error
            assert time.monotonic() < deadline, error
    while accepted.request_id not in leader.held:
        await leader.claim()
    return stream, str(accepted.request_id)
