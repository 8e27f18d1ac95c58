"""What one rank is to compute, and with whom."""

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
class RingSeat:
    """A rank's place at the leader's ring, by which steps come to ranks of its host."""

    name: str  # the same for all readers
    reader: int  # 0 … num_readers - 1
    num_readers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One rank's."""

    position: RankPosition
    device_index: int  # among the ranks of its host
    config: EngineConfig  # with its own ranks_on_host
    invitations: Invitations
    limits: GroupLimits
    store: StoreAddress | None  # where a group is torch's
    ring: RingSeat | None  # None: steps come by the connection for steps
