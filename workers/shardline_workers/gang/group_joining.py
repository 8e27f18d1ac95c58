"""From invitations to the groups in which a rank exchanges tensors."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch.distributed.distributed_c10d import Store

from shardline_workers.collectives.errors import CommunicatorError
from shardline_workers.collectives.one_rank_communicator import OneRankCommunicator
from shardline_workers.collectives.rank_groups import RankGroups
from shardline_workers.collectives.shared_memory_communicator import (
    SLOT_BYTES,
    SharedMemoryCommunicator,
    SharedMemoryOptions,
)
from shardline_workers.collectives.torch_communicator import TorchCommunicator
from shardline_workers.communicator import Communicator, GroupLimits
from shardline_workers.gang.group_plan import GroupInvitation, Invitations, Transport
from shardline_workers.kernels.native_library import NativeLibrary

# A mailbox takes half as much before a stage has to wait until the next one takes it out: 32 rows of 4,096 float32.
_PIPELINE_SLOT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMeans:
    """What this process brings along."""

    device: torch.device
    library: NativeLibrary | None  # for groups that share memory
    store: Callable[[], Store]  # for torch's groups
    num_cores: int  # for the ranks of this host
    ranks_on_host: int
    limits: GroupLimits


def join_groups(invitations: Invitations, means: GroupMeans) -> RankGroups:
    """Joins all groups of a rank; all ranks must do so at once.

    Raises:
        CommunicatorError: ranks did not come, or a group cannot be made.
    """
    joined: dict[str, Communicator] = {}
    with ExitStack() as failure:
        for invitation in (invitations.tensor, invitations.stage, invitations.pipeline):
            if invitation.name not in joined:
                slot_bytes = _PIPELINE_SLOT_BYTES if invitation is invitations.pipeline else SLOT_BYTES
                group = joined[invitation.name] = _join(invitation, means, slot_bytes=slot_bytes)
                failure.callback(group.close)
        failure.pop_all()
    tensor, stage, pipeline = (
        joined[group.name] for group in (invitations.tensor, invitations.stage, invitations.pipeline)
    )
    return RankGroups(tensor=tensor, stage=stage, pipeline=pipeline)


def _join(invitation: GroupInvitation, means: GroupMeans, *, slot_bytes: int) -> Communicator:
    if invitation.transport is Transport.ALONE:
        return OneRankCommunicator(means.device)
    if invitation.transport is Transport.TORCH:
        return TorchCommunicator(
            means.store(), invitation.name, place=invitation.place, device=means.device, limits=means.limits
        )
    if means.library is None:
        raise CommunicatorError("ranks of one host were told to share memory, but there is no native code here")
    return SharedMemoryCommunicator(
        means.library,
        invitation.name,
        place=invitation.place,
        limits=means.limits,
        options=SharedMemoryOptions.for_cores(means.ranks_on_host, means.num_cores, slot_bytes=slot_bytes),
    )
