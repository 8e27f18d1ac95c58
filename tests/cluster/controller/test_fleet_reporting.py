"""The report tells every wanted place: who fills it, or why nobody does."""

from shardline_cluster.controller.fleet_history import FleetHistory, PlaceHistory, ReplicaLife
from shardline_cluster.controller.fleet_reporting import report_on
from shardline_cluster.fleet.fleet_report import FleetReport, PlaceReport
from shardline_cluster.fleet.json_encoding import from_json, to_json
from shardline_cluster.fleet.replica_state import ReplicaState
from tests.cluster.controller.fleets import deployment

HISTORY = FleetHistory(
    now_s=100.0,
    lives={
        "a": ReplicaLife(place="tiny-1a2b-0", state=ReplicaState.READY, since_s=1.0),
        "b": ReplicaLife(place="tiny-1a2b-1", state=ReplicaState.FAILED, since_s=99.0, alive=False),
    },
    places={"tiny-1a2b-1": PlaceHistory(failures=2, not_before_s=102.0, reason="exited with 1")},
)


def test_a_filled_an_empty_and_a_resting_place_are_told_apart() -> None:
    (report,) = report_on([deployment(3)], HISTORY, cluster="c1", controller="c", written_at=5.0).deployments

    assert report.places == (
        PlaceReport(place="tiny-1a2b-0", incarnation="a", state=ReplicaState.READY),
        PlaceReport(
            place="tiny-1a2b-1", state=ReplicaState.FAILED, failures=2, reason="exited with 1", next_start_s=2.0
        ),
        PlaceReport(place="tiny-1a2b-2", state=ReplicaState.PENDING, next_start_s=0.0),
    )
    assert report.num_ready == 1


def test_a_report_travels_as_json_and_is_found_by_lane() -> None:
    report = report_on([deployment(2)], HISTORY, cluster="c1", controller="c", written_at=5.0)

    read = from_json(FleetReport, to_json(report))

    assert read == report
    assert read.cluster == "c1"
    assert read.of_lane("tiny-1a2b") == report.deployments[0]
    assert read.of_lane("other") is None
