"""A replica is well while its steps end in time and its queue answers."""

from typing import Any

import pytest

from shardline_cluster.fleet.replica_state import ReplicaState
from shardline_cluster.replica.progress_watch import ProgressWatch
from shardline_cluster.replica.replica_health import ReplicaHealth


class _Registration:
    state = ReplicaState.READY
    heard_s = 100.0


class _Replica:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.watch = ProgressWatch(least_limit_s=5.0)
        self.registration = _Registration()
        registration: Any = self.registration
        self.health = ReplicaHealth(self.watch, registration, lease_s=6.0, clock=lambda: self.now_s)


@pytest.fixture
def replica() -> _Replica:
    return _Replica()


def test_a_replica_that_was_just_heard_and_does_not_step_is_well(replica: _Replica) -> None:
    replica.now_s += 6.0

    health = replica.health.health()

    assert (health.status, health.details) == (200, {"state": "READY"})


def test_a_step_within_its_limit_is_well_and_one_over_it_is_a_wedged_engine(replica: _Replica) -> None:
    replica.watch.begin(100.0, step=1)
    replica.watch.expect(1.0)

    replica.now_s = replica.registration.heard_s = 120.0
    within = replica.health.health()
    replica.now_s = replica.registration.heard_s = 120.5
    over = replica.health.health()

    assert within.status == 200
    assert over.status == 503
    assert "limit of 20.0 s: the engine is wedged" in over.failing


def test_a_step_that_has_ended_counts_no_more(replica: _Replica) -> None:
    replica.watch.begin(100.0, step=1)
    replica.watch.end(1)
    replica.now_s = replica.registration.heard_s = 1_000.0

    assert replica.health.health().status == 200


def test_a_queue_that_has_been_silent_for_longer_than_the_lease_is_told(replica: _Replica) -> None:
    replica.now_s += 7.0

    assert "answered nothing for 7 s" in replica.health.health().failing
