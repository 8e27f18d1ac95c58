"""Replicas as Ray actors: placed, seen, drained, killed, found again. One small Ray cluster serves all tests."""

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("ray")

import ray
from ray.util.placement_group import placement_group, placement_group_table

from shardline_cluster.controller.ray_launcher import RayLauncher
from shardline_cluster.controller.replica_launcher import ReplicaObservation
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.processes.process_identity import ProcessIdentity
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.serve.ray_plan import NODE_IP
from tests.cluster.controller.fleets import deployment
from tests.cluster.controller.ray_cluster import running_ray_cluster

pytestmark = [pytest.mark.ray, pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(120)]

PLACE = "tiny-1a2b-0"


class PretendedReplicaActor:
    """Has the methods of ReplicaActor and no engine."""

    def __init__(self, spec_json: str) -> None:
        self._stopped = threading.Event()
        self._broken = '"num_replicas":13' in spec_json

    def whereabouts(self) -> tuple[str, int, int]:
        here = ProcessIdentity.of_this_process()
        return (here.host, here.pid, here.started)

    def ended(self) -> tuple[bool, str]:
        if self._broken:
            return (False, "no such file: model.gguf")
        self._stopped.wait()
        return (True, "")

    def stop(self) -> None:
        self._stopped.set()


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    with running_ray_cluster() as plan:
        ray.init(
            address=plan.address,
            namespace="test",
            _node_ip_address=NODE_IP,
            log_to_driver=False,
            configure_logging=False,
        )
        yield
        ray.shutdown()


@pytest.fixture
def launcher() -> Iterator[RayLauncher]:
    launcher = RayLauncher(PretendedReplicaActor)
    yield launcher
    for seen in launcher.observe():
        launcher.forget(seen.incarnation)


def _spec(incarnation: str, *, device: str = "cpu", num_replicas: int = 1) -> ReplicaSpec:
    return ReplicaSpec(
        deployment=deployment(num_replicas, device=device),
        replica=PLACE,
        incarnation=incarnation,
        redis_url="unix:///nowhere",
        prefix="test",
        terms=QueueTerms.short(),
    )


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline, "waited for 40 s in vain"
        time.sleep(0.05)


def _seen(launcher: RayLauncher, incarnation: str) -> ReplicaObservation:
    return {seen.incarnation: seen for seen in launcher.observe()}[incarnation]


def _living_groups() -> list[str]:
    return [group["name"] for group in placement_group_table().values() if group["state"] != "REMOVED"]


def test_a_replica_is_placed_drains_when_it_is_told_and_leaves_nothing(launcher: RayLauncher) -> None:
    launcher.start(_spec("a1"))
    at_once = _seen(launcher, "a1")
    _until(lambda: _seen(launcher, "a1").placed)

    launcher.stop("a1")
    _until(lambda: not _seen(launcher, "a1").alive)
    end = _seen(launcher, "a1")
    launcher.forget("a1")

    assert at_once.alive
    assert end == ReplicaObservation(PLACE, "a1", alive=False, had_drained=True)
    assert launcher.observe() == ()
    _until(lambda: _living_groups() == [])


def test_what_a_replica_says_of_its_failure_is_seen(launcher: RayLauncher) -> None:
    launcher.start(_spec("b1", num_replicas=13))

    _until(lambda: not _seen(launcher, "b1").alive)

    assert _seen(launcher, "b1").reason == "no such file: model.gguf"


def test_a_killed_replica_is_seen_dead_and_not_drained(launcher: RayLauncher) -> None:
    launcher.start(_spec("c1"))
    _until(lambda: _seen(launcher, "c1").placed)

    launcher.kill("c1")
    _until(lambda: not _seen(launcher, "c1").alive)

    assert not _seen(launcher, "c1").had_drained


def test_a_replica_whose_process_dies_is_not_restarted_by_ray(launcher: RayLauncher) -> None:
    launcher.start(_spec("d1"))
    _until(lambda: _seen(launcher, "d1").placed)
    handle = ray.get_actor(f"shardline-replica:{PLACE}:d1")
    pid = ray.get(handle.whereabouts.remote())[1]

    os.kill(pid, 9)
    _until(lambda: not _seen(launcher, "d1").alive)

    assert "died" in _seen(launcher, "d1").reason
    assert len(_seen(launcher, "d1").reason) <= 400


def test_a_replica_without_resources_waits_and_can_be_called_off(launcher: RayLauncher) -> None:
    launcher.start(_spec("e1", device="cuda"))
    time.sleep(1.0)
    waiting = _seen(launcher, "e1")

    launcher.stop("e1")
    _until(lambda: not _seen(launcher, "e1").alive)

    assert (waiting.alive, waiting.placed) == (True, False)
    assert _seen(launcher, "e1").had_drained


def test_the_next_launcher_finds_running_replicas_and_removes_groups_of_dead_ones(launcher: RayLauncher) -> None:
    launcher.start(_spec("f1"))
    _until(lambda: _seen(launcher, "f1").placed)
    placement_group([{"CPU": 0.01}], name=f"shardline-replica:{PLACE}:gone", lifetime="detached")
    foreign = placement_group([{"CPU": 0.01}], name="somebody-else", lifetime="detached")

    successor = RayLauncher(PretendedReplicaActor)
    found = successor.observe()
    _until(lambda: f"shardline-replica:{PLACE}:gone" not in _living_groups())

    assert found == (ReplicaObservation(PLACE, "f1", alive=True),)
    assert "somebody-else" in _living_groups()
    ray.util.remove_placement_group(foreign)
    successor.stop("f1")
    _until(lambda: _seen(successor, "f1").had_drained and _seen(launcher, "f1").had_drained)
