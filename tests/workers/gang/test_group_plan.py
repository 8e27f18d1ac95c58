"""Which groups a rank joins, and by which way each of them exchanges."""

import pytest

from shardline_workers.gang.group_plan import Transport, invite
from shardline_workers.parallel.parallel_plan import ParallelPlan

PLAN = ParallelPlan(tp=2, pp=2, dp=2)
ONE_HOST = ["a"] * 8
HOST_A_STAGE = ["a"] * 4 + ["b"] * 4


def test_every_rank_finds_the_others_of_its_groups_under_one_name_and_nobody_else() -> None:
    invitations = [invite(PLAN, rank, hosts=ONE_HOST, shares_memory=True, gang="g") for rank in range(8)]

    for kind in ("tensor", "stage", "pipeline"):
        by_name: dict[str, list[int]] = {}
        for invitation in invitations:
            group = getattr(invitation, kind)
            by_name.setdefault(group.name, []).append(group.place.rank)
        sizes = {"tensor": 2, "stage": 4, "pipeline": 2}
        assert all(places == list(range(sizes[kind])) for places in by_name.values())
        assert len(by_name) == 8 // sizes[kind]


def test_a_host_for_each_stage_shares_memory_inside_and_sends_activations_by_the_network() -> None:
    invitation = invite(PLAN, 5, hosts=HOST_A_STAGE, shares_memory=True, gang="g")

    assert invitation.tensor.transport is Transport.SHARED_MEMORY
    assert invitation.stage.transport is Transport.SHARED_MEMORY
    assert invitation.pipeline.transport is Transport.TORCH
    assert invitation.need_store


@pytest.mark.parametrize(
    ("tp", "shares_memory", "transport"),
    [
        (8, True, Transport.SHARED_MEMORY),
        (9, True, Transport.TORCH),
        (8, False, Transport.TORCH),
        (1, True, Transport.ALONE),
    ],
)
def test_memory_is_shared_by_as_many_ranks_as_native_code_takes(
    tp: int, shares_memory: bool, transport: Transport
) -> None:
    invitation = invite(ParallelPlan(tp=tp), 0, hosts=["a"] * tp, shares_memory=shares_memory, gang="g")

    assert invitation.tensor.transport is transport


def test_groups_of_the_same_ranks_are_one_group() -> None:
    invitation = invite(ParallelPlan(tp=2), 1, hosts=["a", "a"], shares_memory=True, gang="g")

    assert invitation.tensor == invitation.stage
    assert invitation.pipeline.transport is Transport.ALONE
