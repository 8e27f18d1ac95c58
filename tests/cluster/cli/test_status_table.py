"""A status as text."""

from dataclasses import replace

import pytest

from shardline_cluster.cli.status_table import duration, render
from shardline_cluster.fleet.cluster_status import ClusterStatus, DeploymentRow, LaneRow, ReplicaRow


def a_replica(*, lease_left_s: float = 4.2, reason: str = "") -> ReplicaRow:
    return ReplicaRow(
        replica="smollm2-0",
        state="READY",
        num_requests=3,
        lease_left_s=lease_left_s,
        host="node-1",
        pid=4711,
        reason=reason,
        incarnation="x",
        shape="tp=2 pp=2",
        weights_bytes=92 << 20,
        kv_cache_bytes=1440 << 20,
    )


def a_status(
    *replicas: ReplicaRow, hold_left_s: float | None = None, waiting: int = 2, is_former: bool = False
) -> ClusterStatus:
    lane = LaneRow(
        lane="smollm2-1a",
        waiting_requests=waiting,
        waiting_tokens=60,
        running_requests=3,
        handed_back_requests=0,
        oldest_wait_s=91,
        hold_left_s=hold_left_s,
        num_routers=1,
    )
    deployment = DeploymentRow(
        name="smollm2",
        cluster="default",
        is_former=is_former,
        model="smollm2:135m",
        desired_replicas=2,
        lane=lane,
        replicas=replicas,
    )
    return ClusterStatus((deployment,))


def test_models_and_replicas_stand_in_two_tables() -> None:
    assert render(a_status(a_replica())) == (
        "MODEL    SOURCE        CLUSTER  READY  WAITING  RUNNING  OLDEST WAIT  ROUTERS\n"
        "smollm2  smollm2:135m  default  1/2    2        3        1 min 31 s   1\n"
        "\n"
        "REPLICA    MODEL    STATE  SHAPE      REQUESTS  LEASE       WEIGHTS  KV CACHE  HOST:PID     REASON\n"
        "smollm2-0  smollm2  READY  tp=2 pp=2  3         4.2 s left  92 MiB   1440 MiB  node-1:4711\n"
    )


def test_weights_that_were_replaced_and_still_answer_are_shown_as_such() -> None:
    assert render(a_status(is_former=True)).splitlines()[1].startswith("smollm2 (former weights)  smollm2:135m")


def test_a_place_that_failed_says_how_often_and_when_it_is_tried_again() -> None:
    text = render(a_status(replace(a_replica(reason="out of memory"), failures=3, next_start_s=4.0)))

    assert text.splitlines()[-1].endswith("out of memory (failed 3 times in a row; next try in 4 s)")


def test_without_replicas_there_is_no_second_table() -> None:
    assert render(a_status(waiting=0)) == (
        "MODEL    SOURCE        CLUSTER  READY  WAITING  RUNNING  OLDEST WAIT  ROUTERS\n"
        "smollm2  smollm2:135m  default  0/2    0        3        -            1\n"
    )


def test_a_late_lease_and_a_reason_are_shown() -> None:
    text = render(a_status(a_replica(lease_left_s=-1, reason="out of memory")))

    assert (
        text.splitlines()[-1]
        == "smollm2-0  smollm2  READY  tp=2 pp=2  3         over   92 MiB   1440 MiB  node-1:4711  out of memory"
    )


def test_a_replica_without_a_process_is_shown_with_its_reason() -> None:
    text = render(a_status(ReplicaRow(replica="smollm2-1", state="FAILED", reason="out of memory")))

    assert (
        text.splitlines()[-1]
        == "smollm2-1  smollm2  FAILED  -      0         -      -        -         -         out of memory"
    )


def test_a_hold_is_explained() -> None:
    assert "Lane smollm2-1a is on hold for 3.5 s more: Redis was started or changed" in render(
        a_status(a_replica(), hold_left_s=3.5)
    )


def test_nothing_deployed_is_said() -> None:
    assert render(ClusterStatus(())) == "No model is deployed.\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (0.44, "0.4 s"), (42.3, "42 s"), (185, "3 min 5 s"), (7_800, "2 h 10 min"), (59.7, "1 min 0 s")],
)
def test_spans_of_time_take_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text
