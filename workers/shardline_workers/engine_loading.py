"""From a model's files to an engine that is ready for steps."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256

import torch

from shardline_workers.collectives.rank_groups import RankGroups
from shardline_workers.engine import EngineDescription
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_limits import decide_limits, kv_cache_line
from shardline_workers.gang.gang_loading import load_gang
from shardline_workers.gang.one_rank_executor import OneRankExecutor
from shardline_workers.gang.rank_pool import RankPool
from shardline_workers.gang.step_executor import StepExecutor
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
    pool: RankPool | None = None,
) -> ShardedEngine:
    """Loads a model and makes it ready for steps.

    Args:
        config: what to load, and in which shape.
        report: gets a line for each thing that a user should know; with several ranks in any thread.
        environment: says where compiler and cache of native kernels are.
        times: learns how long each phase takes.
        pool: rank processes for a shape of several ranks, which the engine leaves whole at its end; None: it starts
            its own on this host, and ends them.

    Raises:
        ModelFileError: the model cannot be read or is not supported.
        ValueError: the configuration cannot be met on this machine, or on a rank's; the text says what would.
        GangError: rank processes are missing.
        RankLostError: a rank process was lost.
    """
    times = times or LoadTimes()
    host = read_host_resources()
    with ExitStack() as failure:
        if config.plan.num_ranks == 1:
            loaded = _load_alone(config, host=host, environment=environment, report=report, times=times)
        else:
            loaded = _load_gang(config, pool, host=host, environment=environment, report=report, times=times)
        failure.callback(loaded.executor.close)
        engine = _engine(loaded, report=report)
        report("warming up")
        with times.phase("warm-up"):
            engine.warm_up()
        failure.pop_all()
    return engine


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """A model that can compute steps, on however many ranks."""

    rank: LoadedRank  # in this process
    limits: SchedulerLimits
    executor: StepExecutor
    numerics: Mapping[str, str]  # of all ranks
    weights_bytes: int  # of all ranks
    block_bytes: int  # of a block of the KV cache, on all ranks


def _load_alone(
    config: EngineConfig, *, host: HostResources, environment: Mapping[str, str], report: Report, times: LoadTimes
) -> _Loaded:
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
        limits = decide_limits(
            config,
            rank.shape,
            block_size=rank.block_size,
            block_bytes=rank.block_bytes,
            host=host,
            used_bytes=rank.used_bytes,
        )
        with times.phase("KV cache"):
            executor = OneRankExecutor(rank.build(limits), rank.kernels)
        failure.pop_all()
    return _Loaded(
        rank=rank,
        limits=limits,
        executor=executor,
        numerics=rank.kernels.numerics,
        weights_bytes=rank.weights.num_bytes(),
        block_bytes=rank.block_bytes,
    )


def _load_gang(
    config: EngineConfig,
    pool: RankPool | None,
    *,
    host: HostResources,
    environment: Mapping[str, str],
    report: Report,
    times: LoadTimes,
) -> _Loaded:
    with ExitStack() as own:
        if pool is None:
            pool = RankPool(report=report)
            own.callback(pool.close)
            pool.start_children(config.plan.num_ranks - 1, environment=environment)
        end = ExitStack()
        gang = load_gang(config, pool, host=host, environment=environment, report=report, times=times, end=end.close)
        end.push(own.pop_all())
    return _Loaded(
        rank=gang.rank,
        limits=gang.limits,
        executor=gang.executor,
        numerics=gang.numerics,
        weights_bytes=sum(share.weights_bytes for share in gang.shares),
        block_bytes=sum(share.block_bytes for share in gang.shares),
    )


def _engine(loaded: _Loaded, *, report: Report) -> ShardedEngine:
    rank, limits = loaded.rank, loaded.limits
    report(kv_cache_line(limits, block_bytes=loaded.block_bytes, dtype=rank.kernels.formats.kv_cache))
    return ShardedEngine(
        SchedulerGroups(limits, num_groups=rank.config.plan.dp),
        loaded.executor,
        description=_describe(loaded),
        threads=ThreadGovernor(rank.num_threads),
        max_logprobs=rank.config.max_logprobs,
    )


def _describe(loaded: _Loaded) -> EngineDescription:
    rank, limits = loaded.rank, loaded.limits
    config, kernels = rank.config, rank.kernels
    memory = {"weights_bytes": loaded.weights_bytes, "kv_cache_bytes": limits.num_blocks * loaded.block_bytes}
    numerics = {
        "weights": config.files.digest,
        **loaded.numerics,
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
