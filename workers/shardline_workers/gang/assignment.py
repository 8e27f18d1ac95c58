"""What one rank is to compute, and what it tells of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from shardline_workers.communicator import GroupLimits
from shardline_workers.engine_config import EngineConfig
from shardline_workers.gang.group_plan import Invitations
from shardline_workers.parallel.rank_position import RankPosition


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAddress:
    """Of torch's store, by which the ranks of its groups find each other."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One rank's."""

    position: RankPosition
    device_index: int  # among the ranks of its host
    config: EngineConfig  # with its own ranks_on_host
    invitations: Invitations
    limits: GroupLimits
    store: StoreAddress | None  # where a group is torch's


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedShare:
    """What a rank has, once it has its weights."""

    rank_name: str  # for people
    position: RankPosition
    num_blocks: int  # of the KV cache, at most
    block_size: int  # tokens
    block_bytes: int
    weights_bytes: int
    num_threads: int
    numerics: Mapping[str, str]  # see Kernels.numerics
