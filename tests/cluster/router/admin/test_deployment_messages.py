"""Options go into messages and come back; what is auto is not taken for what is absent."""

import pytest

from shardline_cluster.errors import InvalidRequestError
from shardline_cluster.fleet.deployment import EngineOptions
from shardline_cluster.router.admin.deployment_messages import engine_options, options_message
from shardline_protos import admin_pb2 as pb


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(),
        EngineOptions(tensor_parallel_size=None, data_parallel_size=2, rank_resource="", replan=False),
        EngineOptions(tensor_parallel_size=4, expert_parallel_size=2, pipeline_parallel_size=None),
        EngineOptions(enable_expert_parallel=True, rank_resource="slots", max_model_len=128),
    ],
    ids=str,
)
def test_options_come_back_equal(options: EngineOptions) -> None:
    assert engine_options(options_message(options)) == options


def test_what_a_message_leaves_out_is_the_default() -> None:
    assert engine_options(pb.EngineOptions()) == EngineOptions()


def test_a_size_out_of_bounds_is_refused_with_its_field() -> None:
    with pytest.raises(InvalidRequestError, match=r"options\.tensor_parallel_size is 5000, but must be 1 to 4096"):
        engine_options(pb.EngineOptions(tensor_parallel_size=5000))
