"""Only a leader that says READY and whose lease has not run out serves."""

from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.fleet.ready_leaders import ready_leaders
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_cluster.queue.answers import LaneView, LeaderView

NOW_MS = 10_000


def _leader(state: ReplicaState, *, deployment: str = "tiny", lease_ends_ms: int = NOW_MS + 1) -> LeaderView:
    told = to_json(ReplicaStatus(deployment=deployment, replica="tiny-0", state=state))
    return LeaderView(f"{state.value}-{lease_ends_ms}", lease_ends_ms, 0, "", told)


def _view(*leaders: LeaderView) -> LaneView:
    return LaneView(
        waiting_requests=0,
        waiting_tokens=0,
        running_requests=0,
        handed_back_requests=0,
        oldest_wait_ms=0,
        hold_ends_ms=None,
        now_ms=NOW_MS,
        leaders=leaders,
        num_routers=0,
    )


def test_ready_leaders_of_the_deployment_are_found() -> None:
    ready, loading = _leader(ReplicaState.READY), _leader(ReplicaState.LOADING)
    stranger = _leader(ReplicaState.READY, deployment="other")

    assert list(ready_leaders(_view(loading, ready, stranger), "tiny")) == [ready]


def test_a_leader_whose_lease_has_run_out_serves_no_more_though_nobody_has_swept_it_away() -> None:
    silent = _leader(ReplicaState.READY, lease_ends_ms=NOW_MS)

    assert list(ready_leaders(_view(silent), "tiny")) == []


def test_a_leader_that_speaks_another_version_counts_for_nothing() -> None:
    assert list(ready_leaders(_view(LeaderView("x", NOW_MS + 1, 0, "", '{"future": 1}')), "tiny")) == []
