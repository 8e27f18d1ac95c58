"""Assignments arrive as they were sent, with every field."""

import dataclasses
from pathlib import Path

import pytest

from shardline_protos import gang_pb2
from shardline_workers.communicator import GroupLimits
from shardline_workers.engine_config import EngineConfig
from shardline_workers.files.model_source import ModelFiles, ModelKind
from shardline_workers.gang.assignment import Assignment, RingSeat, StoreAddress
from shardline_workers.gang.assignment_encoding import (
    decode_assignment,
    decode_limits,
    decode_share,
    encode_assignment,
    encode_limits,
    encode_share,
)
from shardline_workers.gang.group_plan import invite
from shardline_workers.gang.loaded_share import LoadedShare
from shardline_workers.parallel.expert_placement import PlacementWish
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.parallel.rank_position import RankPosition
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits

PLAN = ParallelPlan(tp=2, pp=2, ep=2, dp=1)
FILES = ModelFiles(source="m", kind=ModelKind.FOLDER, path=Path("/models/m"), digest="0123", pinned="hf:m@1")
SPARSE = EngineConfig(files=FILES, plan=PLAN)
FULL = EngineConfig(
    files=FILES,
    plan=PLAN,
    device="cuda",
    dtype="float16",
    kernels="reference",
    max_model_len=1,
    max_num_seqs=2,
    max_num_batched_tokens=3,
    kv_cache_tokens=4,
    kv_cache_dtype="int8",
    block_size=5,
    enable_prefix_caching=False,
    max_logprobs=6,
    expert_placement=PlacementWish(num_redundant=2),
    ranks_on_host=7,
    replicas_on_host=8,
    memory_sharers=9,
    memory_taken_bytes=2**40,
)


@pytest.mark.parametrize("config", [SPARSE, FULL], ids=["defaults", "all fields"])
@pytest.mark.parametrize("is_far", [True, False], ids=["other host", "same host"])
def test_an_assignment_arrives_as_it_was_sent(config: EngineConfig, is_far: bool) -> None:
    hosts = ["a", "b", "a", "b"] if is_far else ["a"] * 4
    assignment = Assignment(
        position=RankPosition.of(PLAN, 3),
        device_index=1,
        config=config,
        invitations=invite(PLAN, 3, hosts=hosts, shares_memory=True, gang="g"),
        limits=GroupLimits(join_s=1.5, wait_s=2.5),
        store=StoreAddress(host="10.0.0.1", port=4711) if is_far else None,
        ring=None if is_far else RingSeat(name="ring", reader=0, num_readers=3),
    )

    order = gang_pb2.Order.FromString(encode_assignment(assignment).SerializeToString())

    assert decode_assignment(order.assignment) == assignment


def test_the_full_configuration_differs_from_the_defaults_in_every_field() -> None:
    for field in dataclasses.fields(EngineConfig):
        if field.name not in ("files", "plan"):
            assert getattr(FULL, field.name) != getattr(SPARSE, field.name), field.name


def test_limits_arrive_as_they_were_sent() -> None:
    limits = SchedulerLimits(
        max_model_len=1,
        max_num_seqs=2,
        max_num_batched_tokens=3,
        num_blocks=4,
        block_size=5,
        max_scored_tokens=6,
        enable_prefix_caching=False,
        max_in_flight=2,
    )

    assert decode_limits(gang_pb2.Order.FromString(encode_limits(limits).SerializeToString()).build) == limits


def test_a_share_arrives_as_it_was_sent() -> None:
    share = LoadedShare(
        rank_name="rank 3",
        position=RankPosition.of(PLAN, 3),
        num_blocks=1,
        block_size=2,
        block_bytes=3,
        weights_bytes=2**40,
        numerics={"kernels": "native-2", "device": "cpu"},
    )

    reply = gang_pb2.Reply.FromString(encode_share(share).SerializeToString())

    assert decode_share(reply.loaded, rank_name="rank 3", position=share.position) == share
