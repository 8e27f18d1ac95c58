"""Several models on one `serve`: deployed, scaled, drained, forgotten by Redis, and taken away under clients."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest

from shardline import AsyncClient
from shardline.errors import UnknownModelError
from shardline.results import Completion, RequestState
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.deployment_records import deployments_on_redis
from shardline_cluster.fleet.redeployment import redeployed
from shardline_cluster.processes.wall_clock import wall_clock_ms
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections
from shardline_protos import admin_pb2 as pb
from shardline_protos.admin_pb2_grpc import AdminStub
from tests.end_to_end.served_cluster import LOCAL_REPLICA, ServedCluster, served_cluster
from tests.end_to_end.streams import Heard, hear

pytestmark = [pytest.mark.process, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(120)]

SIMULATED = ("--engine", "simulated", "--simulated-step-s", "0.02", "--simulated-tokens", "per-incarnation")
WITHIN_S = 30.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[ServedCluster]:
    """One cluster for all tests, with a first model of its own; each test deploys another one."""
    with served_cluster(*SIMULATED, "--launcher", "local") as cluster:
        yield cluster


@asynccontextmanager
async def _admin(cluster: ServedCluster) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(cluster.endpoint) as channel:
        yield AdminStub(channel)  # type: ignore[no-untyped-call]


async def _deploy(admin: Any, name: str, *, replicas: int = 1) -> pb.Deployment:
    """Deploys and waits until all replicas are ready."""
    options = pb.EngineOptions(engine="simulated", simulated_step_s=0.02, simulated_tokens="per-incarnation")
    async for _ in admin.ApplyDeployment(pb.ApplyDeploymentRequest(name=name, replicas=replicas, options=options)):
        pass
    return await _ready(admin, name, replicas)


async def _ready(admin: Any, name: str, number: int) -> pb.Deployment:
    async def look() -> pb.Deployment | None:
        listed = await admin.ListDeployments(pb.ListDeploymentsRequest())
        (found,) = [deployment for deployment in listed.deployments if deployment.name == name]
        return found if found.ready_replicas == number else None

    ready: pb.Deployment = await _until(look, f"{number} ready replicas of {name}")
    return ready


async def _until(look: Callable[[], Awaitable[Any]], what: str) -> Any:
    deadline = time.monotonic() + WITHIN_S
    while not (seen := await look()):
        assert time.monotonic() < deadline, f"{what} did not come within {WITHIN_S} s"
        await asyncio.sleep(0.05)
    return seen


async def _incarnations(admin: Any, name: str) -> set[str]:
    listed = await admin.ListReplicas(pb.ListReplicasRequest(deployment=name))
    return {replica.incarnation for replica in listed.replicas if replica.incarnation}


async def _delete(admin: Any, name: str) -> None:
    await admin.DeleteDeployment(pb.DeleteDeploymentRequest(name=name))


async def test_a_model_that_is_deployed_while_another_one_answers_answers_too(cluster: ServedCluster) -> None:
    async with AsyncClient(cluster.endpoint) as client, _admin(cluster) as admin:
        first = Heard()
        async with client.stream("tell", model="simulated", max_tokens=60, ignore_eos=True) as stream:
            await hear(stream, until_tokens=5, into=first)
            deployed = await asyncio.to_thread(
                cluster.command, "deploy", *SIMULATED, "--as", "second", "--name", cluster.name
            )
            answer = await client.generate("hello", model="second", max_tokens=5)
            await hear(stream, into=first)
        names = [model.name for model in await client.models()]
        status = await asyncio.to_thread(cluster.command, "status", "--name", cluster.name)
        await _delete(admin, "second")

    assert deployed.returncode == 0, deployed.stderr
    assert "ready: shardline generate --model second" in deployed.stderr
    assert answer.state is RequestState.DONE
    assert first.num_tokens == 60
    assert names == ["second", "simulated"]
    assert [line.split()[0] for line in status.stdout.splitlines()[1:3]] == ["second", "simulated"]


async def test_with_no_replicas_a_request_waits_and_ends_once_there_are_some(cluster: ServedCluster) -> None:
    async with AsyncClient(cluster.endpoint) as client, _admin(cluster) as admin:
        await _deploy(admin, "scaled")
        await admin.ScaleDeployment(pb.ScaleDeploymentRequest(name="scaled", replicas=2))
        await _ready(admin, "scaled", 2)
        await admin.ScaleDeployment(pb.ScaleDeploymentRequest(name="scaled", replicas=0))
        await _ready(admin, "scaled", 0)
        accepted = await client.submit("hello", model="scaled", max_tokens=5, ignore_eos=True)
        waiting = await client.get_request(accepted.request_id)
        await admin.ScaleDeployment(pb.ScaleDeploymentRequest(name="scaled", replicas=1))
        async with client.resume(accepted.request_id) as stream:
            heard = await hear(stream)
        await _delete(admin, "scaled")

    assert waiting.state is RequestState.WAITING
    assert heard.num_tokens == 5


async def test_a_stream_goes_on_without_loss_while_its_replica_is_drained(cluster: ServedCluster) -> None:
    async with AsyncClient(cluster.endpoint) as client, _admin(cluster) as admin:
        await _deploy(admin, "drained")
        (before,) = await _incarnations(admin, "drained")
        heard = Heard()
        async with client.stream("tell", model="drained", max_tokens=160, ignore_eos=True) as stream:
            await hear(stream, until_tokens=20, into=heard)
            drained = await admin.DrainReplica(pb.DrainReplicaRequest(incarnation=before[:6]), timeout=30)
            await hear(stream, into=heard)
        logged = await client.get_request(str(stream.request_id))
        (after,) = await _incarnations(admin, "drained")
        await _delete(admin, "drained")

    assert drained.incarnation == before
    assert after != before
    assert heard.num_tokens == 160
    assert list(logged.outputs[0].token_ids) == heard.ids[0]


async def test_a_redis_that_forgets_everything_is_told_of_all_deployments_again(cluster: ServedCluster) -> None:
    connections = RedisConnections(RedisAddress.parse(cluster.run_file.redis_url), size=1, timeout_s=20)
    async with AsyncClient(cluster.endpoint) as client, _admin(cluster) as admin:
        await _deploy(admin, "kept")
        replicas = cluster.pids(LOCAL_REPLICA)
        await connections.execute("FLUSHALL")
        await _ready(admin, "kept", 1)
        await _ready(admin, "simulated", 1)
        answers = [await client.generate("hello", model=name, max_tokens=5) for name in ("kept", "simulated")]
        same = cluster.pids(LOCAL_REPLICA) == replicas
        await _delete(admin, "kept")
    await connections.close()

    assert [answer.state for answer in answers] == [RequestState.DONE, RequestState.DONE]
    assert same, "a replica was stopped for a deployment that was only forgotten"


async def test_what_was_accepted_for_other_weights_is_answered_by_them_and_then_they_go(cluster: ServedCluster) -> None:
    records = deployments_on_redis(cluster.run_file.redis_url, prefix=cluster.run_file.redis_prefix, call_timeout_s=20)
    async with AsyncClient(cluster.endpoint) as client, _admin(cluster) as admin:
        old = await _deploy(admin, "renewed")
        heard = Heard()
        async with client.stream("tell", model="renewed", max_tokens=120, ignore_eos=True) as stream:
            await hear(stream, until_tokens=5, into=heard)
            await records.change("renewed", _with_other_weights)
            new = await _until(lambda: _in_another_lane(admin, old.lane), "the new lane")
            answer = await _until(lambda: _answer_from(client, new.lane), "an answer from the new lane")
            await hear(stream, into=heard)
        await _until(lambda: _only_in(admin, "renewed", new.lane), "the end of the old replicas")
        await _delete(admin, "renewed")
    await records.close()

    assert heard.num_tokens == 120
    assert str(stream.request_id).startswith(old.lane)
    assert answer.state is RequestState.DONE


async def _answer_from(client: AsyncClient, lane: str) -> Completion | None:
    """A router looks at deployments once a second: until it has, the old lane answers."""
    answer = await client.generate("hello", model="renewed", max_tokens=5)
    return answer if answer.request_id.startswith(lane) else None


def _with_other_weights(before: Deployment | None) -> Deployment:
    """The simulated engine looks at no weights, so that another digest is other weights."""
    assert before is not None
    return redeployed(before, replace(before, lane="renewed-ffffffff", weights_digest="f" * 16), now_ms=wall_clock_ms())


async def _in_another_lane(admin: Any, lane: str) -> pb.Deployment | None:
    now: pb.Deployment = await _ready(admin, "renewed", 1)
    return now if now.lane != lane else None


async def _only_in(admin: Any, name: str, lane: str) -> bool:
    listed = await admin.ListReplicas(pb.ListReplicasRequest(deployment=name))
    return {replica.place for replica in listed.replicas} == {f"{lane}-0"}


async def test_a_model_that_was_taken_away_is_unknown_and_its_replicas_end(cluster: ServedCluster) -> None:
    async with AsyncClient(cluster.endpoint) as client, _admin(cluster) as admin:
        others = len(cluster.pids(LOCAL_REPLICA))
        await _deploy(admin, "gone")
        told = await asyncio.to_thread(cluster.command, "undeploy", "gone", "--name", cluster.name)
        with pytest.raises(UnknownModelError, match="'gone' is not deployed"):
            await client.generate("hello", model="gone", max_tokens=5)

    assert told.stdout == "gone is deployed no longer\n"
    await asyncio.to_thread(cluster.wait_until, lambda: len(cluster.pids(LOCAL_REPLICA)) <= others, "the replica's end")


async def test_what_cannot_be_deployed_is_told_in_a_line(cluster: ServedCluster) -> None:
    told = await asyncio.to_thread(cluster.command, "deploy", "/nowhere/absent.gguf", "--name", cluster.name)

    assert told.returncode == 1
    assert "no such model" in told.stderr
    assert told.stderr.count("\n") == 1
