"""What is seen of a fleet becomes the phases of its start: each once, the slowest replica's own among them."""

from shardline_cluster.fleet.fleet_report import DeploymentReport, PlaceReport
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_cluster.serve.start_times import StartTimes
from shardline_cluster.serve.start_watch import StartWatch


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def _report(*states: ReplicaState) -> DeploymentReport:
    places = tuple(PlaceReport(place=f"m-{n}", incarnation="i", state=state) for n, state in enumerate(states))
    return DeploymentReport(name="m", lane="m-1", places=places)


def _status(replica: str, **load_s: float) -> ReplicaStatus:
    return ReplicaStatus(deployment="m", replica=replica, state=ReplicaState.READY, load_s=load_s)


def test_every_phase_is_told_once_with_those_of_the_slowest_replica() -> None:
    clock = _Clock()
    times = StartTimes(clock=clock)
    watch = StartWatch(times, controller_began_s=1.0)
    seen = [
        (2.0, (ReplicaState.STARTING, ReplicaState.STARTING)),
        (3.0, (ReplicaState.STARTING, ReplicaState.STARTING)),
        (5.0, (ReplicaState.LOADING, ReplicaState.STARTING)),
        (9.0, (ReplicaState.READY, ReplicaState.WARMING)),
        (10.0, (ReplicaState.READY, ReplicaState.READY)),
        (11.0, (ReplicaState.READY, ReplicaState.READY)),
    ]

    for now_s, states in seen:
        clock.now_s = now_s
        watch.saw(_report(*states), [_status("m-0", imports=1, weights=1), _status("m-1", imports=2, weights=2.5)])
    clock.now_s = 16.0
    watch.ready()

    assert [(phase.name, phase.began_s, phase.took_s) for phase in times.phases] == [
        ("controller", 1.0, 1.0),
        ("replica's process", 2.0, 3.0),
        ("replica's imports", 5.0, 2.0),
        ("replica's weights", 7.0, 2.5),
        ("hold of the queue", 10.0, 6.0),
    ]


def test_a_start_that_waits_for_no_hold_tells_of_none() -> None:
    clock = _Clock()
    times = StartTimes(clock=clock)
    watch = StartWatch(times, controller_began_s=0.0)

    watch.saw(_report(ReplicaState.READY), [])
    watch.ready()

    assert [phase.name for phase in times.phases] == ["controller", "replica's process"]
