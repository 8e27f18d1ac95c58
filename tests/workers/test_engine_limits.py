"""From what was asked of an engine to the bounds that its scheduler keeps."""

import dataclasses
from pathlib import Path

from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_limits import decide_limits
from shardline_workers.memory_budget import MIB, HostResources
from shardline_workers.models.checkpoint import open_checkpoint
from tests.workers.tiny_checkpoint import write_tiny_checkpoint


def num_blocks(config: EngineConfig) -> int:
    with open_checkpoint(config.files) as checkpoint:
        limits = decide_limits(
            config,
            checkpoint.shape,
            block_size=32,
            block_bytes=16 * MIB,
            host=HostResources(num_cores=4, memory_bytes=4096 * MIB),
            used_bytes=0,
        )
    return limits.num_blocks


def test_ranks_of_one_host_share_its_memory_as_replicas_do(tmp_path: Path) -> None:
    alone = EngineConfig(files=write_tiny_checkpoint(tmp_path), max_num_seqs=256)

    two_ranks = dataclasses.replace(alone, ranks_on_host=2)
    two_replicas = dataclasses.replace(alone, replicas_on_host=2)
    both = dataclasses.replace(two_replicas, ranks_on_host=2)

    assert num_blocks(two_ranks) == num_blocks(two_replicas) < num_blocks(alone) / 2
    assert num_blocks(both) < num_blocks(two_ranks) / 2
