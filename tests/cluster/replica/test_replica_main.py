"""The replica's process: serves from a real server, drains at SIGTERM, and its exit code tells the truth."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardline_cluster.fleet.deployment import Deployment, EngineOptions
from shardline_cluster.fleet.json_encoding import from_json, to_json
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_cluster.processes.child_process import start_child
from shardline_cluster.queue.answers import Snapshot
from shardline_cluster.queue.calls import Member, MemberRole
from shardline_cluster.queue.log_encoding import unpack_ids
from shardline_cluster.queue.records import RequestState
from shardline_cluster.queue.redis_request_queue import RedisRequestQueue
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.replica.replica_process import SPEC_VARIABLE
from shardline_workers.simulated_tokens import check_chain
from tests.cluster.queue.redis_servers import running_server, server_binaries
from tests.cluster.replica.simulated_lane import LANE, PROMPT, simulated_submission

pytestmark = [pytest.mark.redis, pytest.mark.process]

TERMS = QueueTerms(lease_ms=4_000, hold_ms=2_500, heartbeat_ms=500, sweep_ms=300, reconnect_ms=500, call_timeout_ms=600)
PATIENCE_S = 40.0  # the machine may be loaded


@pytest.fixture(params=sorted(server_binaries()))
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with running_server(server_binaries()[request.param]) as server:
        yield server.url


def _spec(url: str, incarnation: str) -> ReplicaSpec:
    options = EngineOptions(engine="simulated", simulated_tokens="per-incarnation", simulated_step_s=0.02)
    deployment = Deployment(
        name="simulated", model="simulated", lane=LANE, weights_digest="00", max_model_len=4096, options=options
    )
    return ReplicaSpec(
        deployment=deployment,
        replica="simulated-0",
        incarnation=incarnation,
        redis_url=url,
        prefix="test",
        terms=TERMS,
    )


def _start(spec: str | None, output: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    environment.pop(SPEC_VARIABLE, None)
    if spec is not None:
        environment[SPEC_VARIABLE] = spec
    with output.open("wb") as file:
        return start_child(
            [sys.executable, "-m", "shardline_cluster.replica.replica_process"],
            environment=environment,
            output=file,
        )


class Lane:
    """What a test sees of the lane."""

    def __init__(self, url: str) -> None:
        self.queue = RedisRequestQueue(url, LANE, prefix="test", terms=TERMS)

    async def submit(self, number: int, *, max_tokens: int) -> str:
        reply = await self.queue.register(Member(incarnation="router-1", role=MemberRole.ROUTER))
        request = simulated_submission(number, drawn=reply.identity, max_tokens=max_tokens)
        await self.queue.submit("router-1", 1, request)
        return request.id

    async def look(self, request_id: str) -> Snapshot:
        value = (await self.queue.look(request_id, "tenant")).value
        assert isinstance(value, Snapshot)
        return value

    async def statuses(self) -> list[ReplicaStatus]:
        leaders = (await self.queue.view()).value.leaders
        return [from_json(ReplicaStatus, leader.status) for leader in leaders]

    async def until(self, request_id: str, so: Callable[[Snapshot], bool]) -> Snapshot:
        deadline = time.monotonic() + PATIENCE_S
        while not so(snapshot := await self.look(request_id)):
            assert time.monotonic() < deadline, f"waited for {PATIENCE_S} s in vain: {snapshot}"
            await asyncio.sleep(0.05)
        return snapshot


async def test_it_serves_and_hands_over_at_sigterm(url: str, tmp_path: Path) -> None:
    lane = Lane(url)
    first = _start(to_json(_spec(url, "leader-1")), tmp_path / "first.log")
    short, long = await lane.submit(1, max_tokens=10), await lane.submit(2, max_tokens=150)
    await lane.until(short, lambda s: s.end is not None)
    await lane.until(long, lambda s: s.logs[0].num_tokens > 10)

    first.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(first.wait, 10)
    handed_back = await lane.look(long)
    second = _start(to_json(_spec(url, "leader-2")), tmp_path / "second.log")
    done = await lane.until(long, lambda s: s.end is not None)
    statuses = await lane.statuses()
    second.terminate()
    await asyncio.to_thread(second.wait, 10)
    await lane.queue.close()

    assert code == 0, (tmp_path / "first.log").read_text()
    assert handed_back.state is RequestState.WAITING
    assert (done.epoch, done.attempts, done.logs[0].num_tokens) == (2, 0, 150)
    assert check_chain(tuple(PROMPT.encode()), unpack_ids(done.logs[0].ids)) is None
    assert {status.state for status in statuses} <= {ReplicaState.STOPPED, ReplicaState.READY}
    assert " simulated-0 INFO ready" in (tmp_path / "first.log").read_text()


@pytest.mark.parametrize(
    ("spec", "words"),
    [(None, f"{SPEC_VARIABLE} is not set"), ("{}", f"{SPEC_VARIABLE} is wrong: this is no ReplicaSpec")],
)
async def test_without_a_spec_it_says_so(spec: str | None, words: str, tmp_path: Path) -> None:
    replica = _start(spec, tmp_path / "log")

    code = await asyncio.to_thread(replica.wait, PATIENCE_S)

    assert code == 1
    assert words in (tmp_path / "log").read_text()
