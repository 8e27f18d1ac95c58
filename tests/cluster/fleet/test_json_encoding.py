"""Specs survive the way through JSON, and what is no spec is refused."""

import dataclasses
import traceback

import pytest

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import Deployment, EngineOptions
from shardline_cluster.fleet.json_encoding import from_json, to_json
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_cluster.queue.calls import LaneBounds
from shardline_cluster.queue.terms import QueueTerms
from shardline_workers.sizing.model_shape import ModelShape
from shardline_workers.sizing.published_shapes import published_shape


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


@pytest.mark.parametrize("model", ["smollm2-135m", "deepseek-v3"])
def test_of_a_union_the_dataclass_comes_back_that_went_in(model: str) -> None:
    shape = published_shape(model)
    assert shape is not None

    assert from_json(ModelShape, to_json(shape)) == shape


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 3}', to_json(_spec()).replace('"replica":', '"x":')])
def test_what_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="this is no ReplicaSpec"):
        from_json(ReplicaSpec, text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"name": 3', "line 1 column 11"),
        ("[]", "it must be of type dict, but is of type list"),
        ('{"replica": "m-0"}', "it lacks the fields deployment, incarnation, redis_url, prefix, terms"),
        (to_json(_spec()).replace('"unix:///x"', "7"), "redis_url must be of type str, but is of type int"),
        (to_json(_spec()).replace('"block_size":null', '"block_size":true'), "deployment.options.block_size must be"),
        (to_json(_spec()).replace('"replica":', '"x":'), "it has the unknown fields x"),
    ],
)
def test_an_error_names_the_field(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        from_json(ReplicaSpec, text)

    assert told in str(raised.value)


def test_a_text_is_no_list_of_its_characters() -> None:
    with pytest.raises(ConfigurationError, match="tenant_weights must be of type list, but is of type str"):
        from_json(LaneBounds, '{"tenant_weights": "ab"}')


def test_a_pair_has_two_entries() -> None:
    with pytest.raises(ConfigurationError, match=r"tenant_weights\[0\] has 3 entries, but must have 2"):
        from_json(LaneBounds, '{"tenant_weights": [["a", 1.0, 2.0]]}')


@pytest.mark.parametrize("damage", ['"replica":', '"terms":', '"incarnation":"a1"', "}"])
def test_no_error_repeats_a_password(damage: str) -> None:
    spec = dataclasses.replace(_spec(), redis_url="redis://:sesame@host")
    broken = to_json(spec).replace(damage, "", 1)

    with pytest.raises(ConfigurationError) as raised:
        from_json(ReplicaSpec, broken)

    assert "sesame" not in "".join(traceback.format_exception(raised.value))


@dataclasses.dataclass(frozen=True)
class _States:
    states: frozenset[ReplicaState] = frozenset()


def test_a_frozen_set_comes_back_equal_and_equal_sets_are_equal_texts() -> None:
    states = _States(frozenset({ReplicaState.READY, ReplicaState.FAILED}))

    text = to_json(states)

    assert text == '{"states":["FAILED","READY"]}'
    assert from_json(_States, text) == states
