"""Which groups a rank joins, and by which way each of them exchanges. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from shardline_workers.communicator import GroupPlace
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.parallel.rank_position import RankPosition

MAX_SHARED_MEMORY_RANKS = 8


class Transport(Enum):
    """How ranks of a group exchange tensors."""

    ALONE = "alone"
    SHARED_MEMORY = "shared memory"
    TORCH = "torch"  # gloo, or NCCL on a GPU


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupInvitation:
    """One rank's place in one group."""

    name: str  # the same for all ranks of the group, and of no other group
    place: GroupPlace
    transport: Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitations:
    """One rank's groups. Two of them may be one: then they have the same name."""

    tensor: GroupInvitation
    stage: GroupInvitation
    pipeline: GroupInvitation

    @property
    def need_store(self) -> bool:
        """Whether torch's store has to be there."""
        return any(group.transport is Transport.TORCH for group in (self.tensor, self.stage, self.pipeline))


def invite(plan: ParallelPlan, rank: int, *, hosts: Sequence[str], shares_memory: bool, gang: str) -> Invitations:
    """The groups of one rank.

    Args:
        plan: the shape.
        rank: whose.
        hosts: of each rank; equal where ranks can share memory.
        shares_memory: whether tensors are a CPU's and there is native code to share memory with.
        gang: a name that no gang had before.
    """
    position = RankPosition.of(plan, rank)
    column = [plan.rank(stage=stage, group=position.group, place=position.place) for stage in range(plan.pp)]

    def group(ranks: Sequence[int]) -> GroupInvitation:
        is_one_host = len({hosts[member] for member in ranks}) == 1
        transport = Transport.TORCH
        if len(ranks) == 1:
            transport = Transport.ALONE
        elif shares_memory and is_one_host and len(ranks) <= MAX_SHARED_MEMORY_RANKS:
            transport = Transport.SHARED_MEMORY
        return GroupInvitation(
            name=f"{gang}-{'-'.join(map(str, (ranks[0], ranks[-1], len(ranks))))}",
            place=GroupPlace(rank=ranks.index(rank), num_ranks=len(ranks)),
            transport=transport,
        )

    return Invitations(tensor=group(position.tensor_ranks), stage=group(position.stage_ranks), pipeline=group(column))
