"""Gangs as Ray actors: ranks go to the nodes that were planned, and fall together. Two nodes serve all tests."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

pytest.importorskip("ray")

import ray
from ray.util.placement_group import placement_group_table

from shardline_cluster.controller.gang_planning import plan_gang
from shardline_cluster.controller.ray_launcher import RayLauncher
from shardline_cluster.controller.replica_launcher import ReplicaObservation
from shardline_cluster.fleet.gang import Gang
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.processes.process_identity import ProcessIdentity
from shardline_cluster.queue.terms import QueueTerms
from tests.cluster.controller.rank_clusters import sharded
from tests.end_to_end.ray_nodes import running_ray_nodes

pytestmark = [pytest.mark.ray, pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(120)]

PLACE = "tiny-1a2b-0"
NODES = ("127.0.0.3", "127.0.0.4")


class PretendedLeader:
    """Has the methods of ReplicaActor and no engine."""

    def __init__(self, spec_json: str) -> None:
        self._stopped = threading.Event()

    def whereabouts(self) -> tuple[str, int, int]:
        here = ProcessIdentity.of_this_process()
        return (here.host, here.pid, here.started)

    def gang_address(self) -> str:
        return "the leader's address"

    def ended(self) -> tuple[bool, str]:
        self._stopped.wait()
        return (True, "")

    def stop(self) -> None:
        self._stopped.set()


class PretendedRank:
    """Has the methods of RankActor, and tells what it was told."""

    def __init__(self, spec_json: str, rank: int) -> None:
        self._leader: object = None

    def told(self) -> tuple[object, str, int]:
        return (self._leader, ray.util.get_node_ip_address(), os.getpid())

    def serve(self, leader: object) -> None:
        self._leader = leader

    def ended(self) -> tuple[bool, str]:
        threading.Event().wait()
        return (True, "")


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    with running_ray_nodes(2, 2) as nodes:
        ray.init(
            address=nodes.plan.address,
            namespace="gangs",
            _node_ip_address=NODES[0],
            log_to_driver=False,
            configure_logging=False,
        )
        yield
        ray.shutdown()


@pytest.fixture
def launcher() -> Iterator[RayLauncher]:
    launcher = RayLauncher(PretendedLeader, rank_actor=PretendedRank)
    yield launcher
    for seen in launcher.observe():
        launcher.forget(seen.incarnation)
    _until(lambda: _free(launcher) == {NODES[0]: 2, NODES[1]: 2})


def _spec(launcher: RayLauncher, incarnation: str, *, tp: int = 2, pp: int = 2) -> ReplicaSpec:
    wanted = sharded(tp=tp, pp=pp)
    gang = plan_gang(wanted, launcher.inventory("GPU"), others={}, may_shrink=False)
    assert isinstance(gang, Gang), gang
    return ReplicaSpec(
        deployment=wanted,
        replica=PLACE,
        incarnation=incarnation,
        redis_url="unix:///nowhere",
        prefix="test",
        terms=QueueTerms.short(),
        gang=gang,
    )


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline, "waited for 40 s in vain"
        time.sleep(0.05)


def _free(launcher: RayLauncher) -> dict[str, int]:
    return {node.host: node.free_slots for node in launcher.inventory("GPU")}


def _seen(launcher: RayLauncher, incarnation: str) -> ReplicaObservation:
    return {seen.incarnation: seen for seen in launcher.observe()}[incarnation]


def _told(incarnation: str, rank: int) -> tuple[object, str, int]:
    answer: tuple[object, str, int] = ray.get(
        ray.get_actor(f"shardline-replica:{PLACE}:{incarnation}:{rank}").told.remote()
    )
    return answer


def _running(launcher: RayLauncher, incarnation: str) -> None:
    launcher.start(_spec(launcher, incarnation))
    _until(lambda: _seen(launcher, incarnation).placed and not any(_free(launcher).values()))
    _until(lambda: all(_told(incarnation, rank)[0] is not None for rank in (1, 2, 3)))


def test_ranks_are_told_their_leader_on_the_nodes_that_were_planned_and_take_their_slots(launcher: RayLauncher) -> None:
    before = _free(launcher)

    _running(launcher, "a1")
    gang = _seen(launcher, "a1").gang

    assert before == {NODES[0]: 2, NODES[1]: 2}
    assert gang is not None
    hosts = {rank: bundle.host for bundle in gang.bundles for rank in bundle.ranks}
    assert {rank: _told("a1", rank)[:2] for rank in (1, 2, 3)} == {
        rank: ("the leader's address", hosts[rank]) for rank in (1, 2, 3)
    }
    assert hosts[0] == hosts[1] != hosts[2] == hosts[3]


def test_with_one_rank_the_whole_gang_falls_and_gives_all_slots_back(launcher: RayLauncher) -> None:
    _running(launcher, "b1")
    leader = ray.get(ray.get_actor(f"shardline-replica:{PLACE}:b1").whereabouts.remote())

    os.kill(_told("b1", 2)[2], 9)
    _until(lambda: not _seen(launcher, "b1").alive)
    end = _seen(launcher, "b1")
    launcher.forget("b1")

    assert "rank 2 is lost" in end.reason
    assert not end.had_drained
    _until(lambda: ProcessIdentity(*leader).gone())
    _until(lambda: [g for g in placement_group_table().values() if g["state"] != "REMOVED"] == [])


def test_the_next_launcher_finds_leader_and_ranks_and_sees_a_rank_die(launcher: RayLauncher) -> None:
    _running(launcher, "c1")

    successor = RayLauncher(PretendedLeader, rank_actor=PretendedRank)
    found = successor.observe()
    os.kill(_told("c1", 3)[2], 9)
    _until(lambda: not _seen(successor, "c1").alive)

    assert found == (ReplicaObservation(PLACE, "c1", alive=True),)
    assert "rank 3 is lost" in _seen(successor, "c1").reason


def test_a_gang_whose_nodes_were_taken_waits_and_can_be_called_off(launcher: RayLauncher) -> None:
    waiting = _spec(launcher, "d2", pp=1)
    _running(launcher, "d1")

    launcher.start(replace(waiting, replica="tiny-1a2b-1"))
    time.sleep(1.0)
    placed = _seen(launcher, "d2").placed
    launcher.stop("d2")
    _until(lambda: not _seen(launcher, "d2").alive)

    assert not placed
    assert _seen(launcher, "d2").had_drained
