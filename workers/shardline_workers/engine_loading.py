"""From a model's files to an engine that is ready for steps."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from hashlib import sha256

import torch

from shardline_workers.collectives.rank_groups import RankGroups
from shardline_workers.engine import EngineDescription
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_limits import decide_limits, kv_cache_line
from shardline_workers.gang.one_rank_executor import OneRankExecutor
from shardline_workers.load_times import LoadTimes
from shardline_workers.memory_budget import HostResources, read_host_resources
from shardline_workers.parallel.rank_position import RankPosition
from shardline_workers.rank_loading import LoadedRank, Report, load_rank
from shardline_workers.ranks.thread_governor import ThreadGovernor
from shardline_workers.scheduling.scheduler_groups import SchedulerGroups
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits
from shardline_workers.sharded_engine import ShardedEngine


def load_engine(
    config: EngineConfig,
    *,
    report: Report,
    environment: Mapping[str, str] = os.environ,
    times: LoadTimes | None = None,
) -> ShardedEngine:
    """Loads a model and makes it ready for steps.

    Args:
        config: what to load.
        report: gets a line for each thing that a user should know.
        environment: says where compiler and cache of native kernels are.
        times: learns how long each phase takes.

    Raises:
        ModelFileError: the model cannot be read or is not supported.
        ValueError: the configuration cannot be met on this machine; the text says what would.
    """
    times = times or LoadTimes()
    host = read_host_resources()
    with ExitStack() as failure:
        rank = load_rank(
            config,
            RankPosition.of(config.plan, 0),
            RankGroups.alone(torch.device(config.device)),
            host=host,
            environment=environment,
            report=report,
            times=times,
        )
        failure.callback(rank.close)
        with times.phase("KV cache"):
            engine = _build(rank, host=host, report=report)
        report("warming up")
        with times.phase("warm-up"):
            engine.warm_up()
        failure.pop_all()
    return engine


def _build(rank: LoadedRank, *, host: HostResources, report: Report) -> ShardedEngine:
    config, block_bytes = rank.config, rank.block_bytes
    limits = decide_limits(
        config,
        rank.shape,
        block_size=rank.block_size,
        block_bytes=block_bytes,
        host=host,
        used_bytes=rank.used_bytes,
    )
    report(kv_cache_line(limits, block_bytes=block_bytes, dtype=rank.kernels.formats.kv_cache))
    memory = {"weights_bytes": rank.weights.num_bytes(), "kv_cache_bytes": limits.num_blocks * block_bytes}
    return ShardedEngine(
        SchedulerGroups(limits, num_groups=config.plan.dp),
        OneRankExecutor(rank.build(limits), rank.kernels),
        description=_describe(rank, limits, memory=memory),
        threads=ThreadGovernor(rank.num_threads),
        max_logprobs=config.max_logprobs,
    )


def _describe(rank: LoadedRank, limits: SchedulerLimits, *, memory: Mapping[str, int]) -> EngineDescription:
    config, kernels = rank.config, rank.kernels
    numerics = {
        "weights": config.files.digest,
        **kernels.numerics,
        "block_size": str(limits.block_size),  # attention may sum block by block
        "shape": str(config.plan),
    }
    told = "; ".join(f"{name}={value}" for name, value in numerics.items())
    return EngineDescription(
        numerics_id=sha256(told.encode()).hexdigest()[:16],
        max_model_len=limits.max_model_len,
        max_num_seqs=limits.max_num_seqs,
        kv_cache_tokens=limits.kv_cache_tokens,
        vocab_size=rank.shape.vocab_size,
        details={
            **numerics,
            **kernels.details,
            **{name: str(num_bytes) for name, num_bytes in memory.items()},
            "model": config.files.source,
            "family": rank.shape.family,
            "threads": str(rank.num_threads),
            "prefix_caching": "on" if limits.enable_prefix_caching else "off",
            "batch_invariant": "yes" if kernels.is_batch_invariant else "no",
        },
    )
