"""From a configuration of several ranks to what computes its steps on all of them."""

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_limits import decide_limits
from shardline_workers.gang.gang import Gang
from shardline_workers.gang.gang_executor import GangExecutor
from shardline_workers.gang.loaded_share import LoadedShare, share_of_rank
from shardline_workers.gang.rank_member import Report
from shardline_workers.gang.rank_pool import RankPool
from shardline_workers.gang.shared_room import least_blocks, shared_numerics
from shardline_workers.load_times import LoadTimes
from shardline_workers.memory_budget import HostResources
from shardline_workers.parallel.rank_position import RankPosition
from shardline_workers.rank_loading import LoadedRank, load_rank
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedGang:
    """All ranks, ready for steps."""

    rank: LoadedRank  # 0
    limits: SchedulerLimits
    shares: tuple[LoadedShare, ...]  # of all ranks, in their order
    numerics: Mapping[str, str]  # of all ranks together
    executor: GangExecutor


def load_gang(
    config: EngineConfig,
    pool: RankPool,
    *,
    host: HostResources,
    environment: Mapping[str, str],
    report: Report,
    times: LoadTimes,
    end: Callable[[], None],
) -> LoadedGang:
    """Loads a model on all ranks of a plan.

    Args:
        config: what to load, and in which shape.
        pool: has the rank processes, or will have.
        host: this one.
        environment: says where compiler and cache of native kernels are.
        report: gets a line for each thing that a user should know.
        times: learns how long each phase takes.
        end: called when the executor is closed; not before this returns.

    Raises:
        GangError: ranks are missing.
        RankLostError: one was lost.
        ValueError: a rank, which the text names, cannot read the model or do what is asked.
    """
    with ExitStack() as failure:
        with times.phase("ranks"):
            gang = Gang(config, pool, host=host, environment=environment, report=report)
        failure.callback(gang.abandon)
        rank = load_rank(
            gang.config,
            RankPosition.of(config.plan, 0),
            gang.groups,
            host=host,
            environment=environment,
            report=report,
            times=times,
        )
        failure.callback(rank.close)
        with times.phase("other ranks"):
            shares = (share_of_rank(rank, rank_name="rank 0 (the leader)"), *gang.shares())
        limits = _limits(rank, shares, host=host)
        numerics = shared_numerics(shares)
        gang.begin_build(limits)
        with times.phase("KV cache"):
            runner = rank.build(limits)
            gang.begin_steps()
        failure.pop_all()
    executor = GangExecutor(gang, runner, rank.kernels, plan=config.plan, limits=limits, end=end)
    return LoadedGang(rank=rank, limits=limits, shares=shares, numerics=numerics, executor=executor)


def _limits(rank: LoadedRank, shares: tuple[LoadedShare, ...], *, host: HostResources) -> SchedulerLimits:
    """Those of a KV cache that every rank has room for."""
    tokens = least_blocks(shares) * rank.block_size
    return decide_limits(
        dataclasses.replace(rank.config, kv_cache_tokens=tokens),
        rank.shape,
        block_size=rank.block_size,
        block_bytes=rank.block_bytes,
        host=host,
        used_bytes=rank.used_bytes,
    )
