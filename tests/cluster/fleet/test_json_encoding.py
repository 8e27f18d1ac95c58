"""Specs survive the way through JSON, and what is no spec is refused."""

import pytest

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import Deployment, EngineOptions
from shardline_cluster.fleet.json_encoding import from_json, to_json
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_cluster.queue.records import LaneBounds
from shardline_cluster.queue.terms import QueueTerms


def _spec() -> ReplicaSpec:
    options = EngineOptions(engine="simulated", max_model_len=128, simulated_step_s=0.5)
    deployment = Deployment(
        name="m", model="simulated", lane="m-1", weights_digest="00", max_model_len=128, options=options
    )
    return ReplicaSpec(
        deployment=deployment, replica="m-0", incarnation="a1", redis_url="unix:///x", prefix="p", terms=QueueTerms()
    )


def test_a_nested_spec_comes_back_equal() -> None:
    assert from_json(ReplicaSpec, to_json(_spec())) == _spec()


def test_enums_dicts_and_tuples_come_back_equal() -> None:
    status = ReplicaStatus(deployment="m", replica="m-0", state=ReplicaState.READY, details={"kv": "1"})
    bounds = LaneBounds(tenant_weights=(("a", 2.0), ("b", 0.5)))

    assert from_json(ReplicaStatus, to_json(status)) == status
    assert from_json(LaneBounds, to_json(bounds)) == bounds


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 3}', to_json(_spec()).replace('"replica":', '"x":')])
def test_what_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="this is no ReplicaSpec"):
        from_json(ReplicaSpec, text)
