from prometheus_client import CollectorRegistry

from shardline_cluster.replica.replica_metrics import REPLICA_LABELS, ReplicaMetrics
from shardline_workers.engine import StageTimes, StepResult
from tests.cluster.telemetry.readings import readings

LABELS = dict.fromkeys(REPLICA_LABELS, "some")


def test_the_time_of_stages_adds_up_beside_the_time_in_which_steps_were_under_way() -> None:
    registry = CollectorRegistry()
    metrics = ReplicaMetrics(registry, LABELS)

    metrics.stepped(StepResult(active_s=0.5, stage_times=(StageTimes(0, 0.25), StageTimes(1, 0.125))), 0.5)
    metrics.stepped(StepResult(active_s=0.25, stage_times=(StageTimes(0, 0.25),)), 0.25)

    told = readings(registry)
    assert told.value("shardline_engine_active_seconds_total", **LABELS) == 0.75
    assert told.value("shardline_stage_busy_seconds_total", **LABELS, stage="0") == 0.5
    assert told.value("shardline_stage_busy_seconds_total", **LABELS, stage="1") == 0.125
