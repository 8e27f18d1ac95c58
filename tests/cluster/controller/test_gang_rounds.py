"""Rounds over gangs: they wait for room, shrink when it stays away, and grow back when it has returned and stayed."""

from dataclasses import replace

from shardline_cluster.controller.actions import Action, Start, Stop
from shardline_cluster.controller.fleet_history import FleetHistory, FleetRound
from shardline_cluster.controller.fleet_reporting import report_on
from shardline_cluster.controller.gang_planning import ReplanTimes
from shardline_cluster.controller.gang_rounds import UNKNOWN_NODES
from shardline_cluster.controller.reconciler import reconcile
from shardline_cluster.controller.replica_limits import ReplicaLimits
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.fleet_report import PlaceReport
from shardline_cluster.fleet.replica_state import ReplicaState
from shardline_cluster.planning.rank_nodes import RankNode, without
from tests.cluster.controller.fleets import PretendedFleet
from tests.cluster.controller.rank_clusters import a_node, sharded

LIMITS = ReplicaLimits(replan=ReplanTimes(missing_s=20, returned_s=30))


class _Cluster:
    """A pretended fleet on nodes, a round every half second."""

    def __init__(self, *desired: Deployment, nodes: tuple[RankNode, ...]) -> None:
        self.desired, self.nodes = desired, nodes
        self.fleet, self.history, self.now_s = PretendedFleet(), FleetHistory(), 0.0
        self.knows_nodes = True

    def round(self) -> tuple[Action, ...]:
        self.now_s += 0.5
        self.fleet.tick()
        round_ = FleetRound(
            desired=self.desired,
            observed=self.fleet.observed(),
            statuses=self.fleet.statuses(),
            now_s=self.now_s,
            nodes=self.free() if self.knows_nodes else None,
        )
        decided = reconcile(round_, self.history, LIMITS)
        self.history = decided.history
        for action in decided.actions:
            self.fleet.act(action)
        return decided.actions

    def play(self, seconds: float) -> list[Action]:
        return [action for _ in range(round(seconds * 2)) for action in self.round()]

    def free(self) -> tuple[RankNode, ...]:
        nodes = self.nodes
        for replica in self.fleet.replicas.values():
            if replica.alive and replica.gang and replica.state is not ReplicaState.PENDING:
                nodes = without(nodes, replica.gang.slots)
        return nodes

    def shapes(self) -> list[str]:
        return [str(r.gang.plan) for r in self.fleet.replicas.values() if r.alive and r.gang]

    def place(self, index: int = 0) -> PlaceReport:
        report = report_on(self.desired, self.history, cluster="c", controller="x", written_at=0.0)
        return report.deployments[0].places[index]


def _starts(actions: list[Action]) -> list[str]:
    return [str(action.gang.plan) for action in actions if isinstance(action, Start)]


def test_a_gang_starts_in_the_shape_that_was_asked_for_and_is_left_alone() -> None:
    cluster = _Cluster(sharded(tp=2, pp=2), nodes=(a_node("1", 2), a_node("2", 2)))

    actions = cluster.play(200)

    assert _starts(actions) == ["tp=2 pp=2"]
    assert len(actions) == 1
    assert (cluster.place().shape, cluster.place().reason) == ("tp=2 pp=2", "")


def test_a_lost_gpu_that_comes_back_in_time_brings_the_same_shape_back() -> None:
    cluster = _Cluster(sharded(tp=4), nodes=(a_node("1", 4),))
    cluster.play(5)
    cluster.nodes = (a_node("1", 3),)
    cluster.fleet.only()[1].die()

    waiting = cluster.play(15)
    told = cluster.place()
    cluster.nodes = (a_node("1", 4),)
    back = cluster.play(5)

    assert _starts(waiting) == []
    assert told.state is ReplicaState.PENDING
    assert "waits for room: tp=4 takes 4 x GPU, but there are 3 free on one node" in told.reason
    assert _starts(back) == ["tp=4"]


def test_a_gpu_that_stays_away_leaves_a_smaller_shape_until_it_has_been_back_for_a_while() -> None:
    cluster = _Cluster(sharded(tp=4), nodes=(a_node("1", 4),))
    cluster.play(5)
    cluster.nodes = (a_node("1", 3),)
    cluster.fleet.only()[1].die()

    shrunk = cluster.play(30)
    told = cluster.place()
    cluster.nodes = (a_node("1", 4),)
    early = cluster.play(25)
    late = cluster.play(20)

    assert _starts(shrunk) == ["tp=3"]
    assert (told.state, told.shape) == (ReplicaState.READY, "tp=3")
    assert told.reason.startswith("re-planned from tp=4: ")
    assert early == []
    assert [action.reason for action in late if isinstance(action, Stop)] == ["there is room for tp=4 again"]
    assert _starts(late) == ["tp=4"]
    assert cluster.shapes() == ["tp=4"]


def test_a_gpu_that_comes_and_goes_does_not_stop_a_replica() -> None:
    cluster = _Cluster(sharded(tp=4), nodes=(a_node("1", 3, 4),))
    cluster.play(30)

    actions = []
    for _ in range(4):
        cluster.nodes = (a_node("1", 4),)
        actions += cluster.play(20)
        cluster.nodes = (a_node("1", 3, 4),)
        actions += cluster.play(1)

    assert actions == []
    assert cluster.shapes() == ["tp=3"]


def test_a_smaller_shape_says_so_in_its_place() -> None:
    cluster = _Cluster(sharded(tp=4), nodes=(a_node("1", 3, 4),))

    cluster.play(30)

    reason = cluster.place().reason
    assert reason == "re-planned from tp=4: tp=4 takes 4 x GPU, but there are 3 free on one node"


def test_of_several_smaller_replicas_one_goes_back_at_a_time() -> None:
    cluster = _Cluster(sharded(2, tp=2), nodes=(a_node("1", 1, 2),))
    cluster.play(25)
    cluster.nodes = (a_node("1", 1, 2), a_node("2", 1, 2))
    cluster.play(30)
    shrunk = cluster.shapes()
    cluster.nodes = (a_node("1", 2), a_node("2", 2))

    num_serving = []
    for _ in range(200):
        cluster.round()
        num_serving.append(sum(r.state is ReplicaState.READY for r in cluster.fleet.replicas.values()))

    assert shrunk == ["tp=1", "tp=1"]
    assert cluster.shapes() == ["tp=2", "tp=2"]
    assert min(num_serving) == 1


def test_two_replicas_that_start_in_one_round_do_not_get_the_same_slots() -> None:
    cluster = _Cluster(sharded(2, tp=2), nodes=(a_node("1", 4),))

    cluster.play(5)

    gangs = [replica.gang for replica in cluster.fleet.replicas.values()]
    assert [gang.slots for gang in gangs if gang] == [{"1": 2}, {"1": 2}]


def test_a_gang_that_does_not_come_to_its_nodes_is_planned_anew() -> None:
    cluster = _Cluster(sharded(tp=2), nodes=(a_node("1", 2), a_node("2", 2)))
    cluster.round()
    cluster.fleet.only()[1].waits = True  # others were faster
    taken = cluster.fleet.only()[1].gang
    assert taken is not None
    cluster.nodes = tuple(
        node if node.name not in taken.slots else replace(node, free_slots=0) for node in cluster.nodes
    )

    actions = cluster.play(20)

    (stop,) = [action for action in actions if isinstance(action, Stop)]
    assert "it has not come to its nodes for" in stop.reason
    (again,) = [action for action in actions if isinstance(action, Start)]
    assert not set(again.gang.slots) & set(taken.slots)


def test_while_nobody_knows_the_nodes_nothing_is_started_and_nothing_is_stopped() -> None:
    cluster = _Cluster(sharded(2, tp=2), nodes=(a_node("1", 4),))
    cluster.play(5)
    cluster.knows_nodes = False
    next(iter(cluster.fleet.replicas.values())).die()

    actions = cluster.play(60)

    assert _starts(actions) == []
    assert [action for action in actions if isinstance(action, Stop)] == []
    assert UNKNOWN_NODES in cluster.place().reason
    cluster.knows_nodes = True
    assert _starts(cluster.play(1)) == ["tp=2"]


def test_ranks_that_take_no_slots_need_no_nodes() -> None:
    cluster = _Cluster(sharded(tp=3, rank_resource=""), nodes=())
    cluster.knows_nodes = False

    assert _starts(cluster.play(1)) == ["tp=3"]
