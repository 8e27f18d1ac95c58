"""News of the fleet in words: each once, failures with their reason, and despair only when it is due."""

from dataclasses import replace

from shardline_cluster.fleet.fleet_report import DeploymentReport, FleetReport, PlaceReport
from shardline_cluster.fleet.replica_state import ReplicaState
from shardline_cluster.serve.fleet_watch import FleetNews, changes, hopeless, is_up

LOADING = PlaceReport(place="tiny-1-0", incarnation="a", state=ReplicaState.LOADING)
READY = replace(LOADING, state=ReplicaState.READY)
FAILED = PlaceReport(
    place="tiny-1-0", state=ReplicaState.FAILED, failures=1, reason="exited with 1: no memory", next_start_s=1.0
)


def _report(*places: PlaceReport) -> DeploymentReport:
    return DeploymentReport(name="tiny", lane="tiny-1", places=places)


def _lines(before: PlaceReport | None, after: PlaceReport) -> list[str]:
    return list(changes(None if before is None else _report(before), _report(after)))


def test_news_are_of_all_lanes_and_of_those_that_are_gone() -> None:
    news = FleetNews()
    other = DeploymentReport(name="other", lane="other-2", places=(replace(READY, place="other-2-0"),))

    first = news.of(FleetReport(controller="c", written_at=0.0, deployments=(_report(LOADING),)))
    second = news.of(FleetReport(controller="c", written_at=0.0, deployments=(_report(READY), other)))
    third = news.of(FleetReport(controller="c", written_at=0.0, deployments=(other,)))

    assert first == ["tiny-1-0: loading the model"]
    assert second == ["tiny-1-0: ready", "other-2-0: ready"]
    assert third == ["tiny: the lane tiny-1 is served no longer"]


def test_each_state_is_told_once() -> None:
    assert _lines(None, LOADING) == ["tiny-1-0: loading the model"]
    assert _lines(LOADING, LOADING) == []
    assert _lines(LOADING, READY) == ["tiny-1-0: ready"]


def test_a_failure_is_told_with_its_reason_and_the_next_try() -> None:
    assert _lines(READY, FAILED) == ["tiny-1-0 failed: exited with 1: no memory; next try in 1 s"]
    assert _lines(FAILED, replace(FAILED, next_start_s=0.5)) == []


def test_a_crash_loop_is_shown_as_one() -> None:
    again = replace(FAILED, failures=4, next_start_s=8.0)

    assert _lines(FAILED, again) == ["tiny-1-0 failed (4 times in a row): exited with 1: no memory; next try in 8 s"]


def test_the_successor_is_told_by_its_state_although_the_failure_is_still_known() -> None:
    successor = replace(FAILED, incarnation="b", state=ReplicaState.STARTING, next_start_s=None)

    assert _lines(FAILED, successor) == ["tiny-1-0: starting"]


def test_there_is_hope_while_any_place_has_failed_less_than_three_times() -> None:
    thrice = replace(FAILED, failures=3)

    assert hopeless(_report(FAILED)) == ""
    assert hopeless(_report(thrice, replace(READY, place="tiny-1-1"))) == ""
    assert hopeless(_report(thrice)) == "exited with 1: no memory"
    assert hopeless(_report()) == ""


def test_a_fleet_is_up_when_nothing_is_on_its_way_any_more() -> None:
    waiting = replace(LOADING, place="tiny-1-1", state=ReplicaState.PENDING)
    not_begun = replace(waiting, incarnation="")

    assert is_up(_report(READY))
    assert is_up(_report(READY, waiting))
    assert is_up(_report())
    assert not is_up(_report(READY, not_begun))
    assert not is_up(_report(READY, replace(LOADING, place="tiny-1-1")))
    assert not is_up(_report(waiting))


def test_a_replica_that_waits_for_resources_is_told_but_an_empty_place_is_not() -> None:
    waiting = replace(LOADING, state=ReplicaState.PENDING)

    assert _lines(None, waiting) == ["tiny-1-0: waiting for resources"]
    assert _lines(None, replace(waiting, incarnation="")) == []


def test_a_place_without_room_says_what_is_missing_whenever_that_changes() -> None:
    empty = PlaceReport(place="tiny-1-0", reason="waits for room: tp=4 takes 4 x GPU, but there are none free")
    better = replace(empty, reason="waits for room: tp=4 takes 4 x GPU, but there are 3 free on one node")

    assert _lines(None, empty) == [f"tiny-1-0: {empty.reason}"]
    assert _lines(empty, empty) == []
    assert _lines(empty, better) == [f"tiny-1-0: {better.reason}"]
    assert is_up(_report(READY, replace(empty, place="tiny-1-1")))


def test_a_replica_of_several_ranks_tells_its_shape_when_it_is_ready() -> None:
    assert _lines(LOADING, replace(READY, shape="tp=3")) == ["tiny-1-0: ready as tp=3"]
    assert _lines(LOADING, replace(READY, shape="tp=1")) == ["tiny-1-0: ready"]
