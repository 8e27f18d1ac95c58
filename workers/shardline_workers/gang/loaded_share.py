"""What a rank tells once it has its weights."""

from collections.abc import Mapping
from dataclasses import dataclass

from shardline_workers.engine_limits import decide_limits
from shardline_workers.memory_budget import read_host_resources
from shardline_workers.parallel.rank_position import RankPosition
from shardline_workers.rank_loading import LoadedRank


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedShare:
    """One rank's."""

    rank_name: str  # for people
    position: RankPosition
    num_blocks: int  # of the KV cache, at most
    block_size: int  # tokens
    block_bytes: int
    weights_bytes: int
    numerics: Mapping[str, str]  # see Kernels.numerics


def share_of_rank(rank: LoadedRank, *, rank_name: str = "") -> LoadedShare:
    """What a rank has, and how many blocks of KV cache would fit beside that.

    Raises:
        ValueError: not one; the text says what would help.
    """
    limits = decide_limits(
        rank.config,
        rank.shape,
        block_size=rank.block_size,
        block_bytes=rank.block_bytes,
        host=read_host_resources(),
        used_bytes=rank.used_bytes,
    )
    return LoadedShare(
        rank_name=rank_name,
        position=rank.share.position,
        num_blocks=limits.num_blocks,
        block_size=rank.block_size,
        block_bytes=rank.block_bytes,
        weights_bytes=rank.weights.num_bytes(),
        numerics=rank.kernels.numerics,
    )
