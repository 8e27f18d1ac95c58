"""All ranks of any plan as threads of this process, which exchange through shared memory: no process is started.

Every rank gets the same step plans, has a queue of its own, and computes with the kernels that the configuration names.
`ThreadRanks` implements `StepExecutor`, so an engine may stand on it: see `threaded_engine`.
"""

import dataclasses
import os
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Self, TypeVar

import torch

from shardline_workers.collectives.one_rank_communicator import OneRankCommunicator
from shardline_workers.collectives.rank_groups import RankGroups
from shardline_workers.collectives.shared_memory_communicator import SharedMemoryCommunicator
from shardline_workers.communicator import Communicator, GroupLimits, GroupPlace
from shardline_workers.engine import EngineDescription, StageTimes
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_limits import decide_limits
from shardline_workers.gang.step_executor import ExecutedSteps, GroupSteps
from shardline_workers.kernels.kernels import RunTimes
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.load_times import LoadTimes
from shardline_workers.memory_budget import read_host_resources
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.parallel.rank_position import RankPosition
from shardline_workers.rank_loading import LoadedRank, load_rank
from shardline_workers.ranks.model_runner import ModelRunner
from shardline_workers.ranks.thread_governor import ThreadGovernor
from shardline_workers.scheduling.scheduler_groups import SchedulerGroups
from shardline_workers.scheduling.step_plan import SampledToken
from shardline_workers.sharded_engine import ShardedEngine
from tests.workers.thread_groups import LIMITS, OPTIONS

T = TypeVar("T")


def join_groups(library: NativeLibrary, position: RankPosition, *, name: str, limits: GroupLimits) -> RankGroups:
    """Makes one rank's ends of its groups; all ranks of the plan must do so at once.

    Args:
        library: the native kernels.
        position: of the rank.
        name: of this gang, never used before.
        limits: how long ranks wait for each other.
    """

    def group(kind: str, ranks: Sequence[int]) -> Communicator:
        if len(ranks) == 1:
            return OneRankCommunicator(torch.device("cpu"))
        place = GroupPlace(rank=ranks.index(position.rank), num_ranks=len(ranks))
        return SharedMemoryCommunicator(
            library, f"{name}-{kind}-{ranks[0]}", place=place, limits=limits, options=OPTIONS
        )

    plan = position.plan
    column = [plan.rank(stage=stage, group=position.group, place=position.place) for stage in range(plan.pp)]
    return RankGroups(
        tensor=group("tensor", position.tensor_ranks),
        stage=group("stage", position.stage_ranks),
        pipeline=group("pipeline", column),
    )


class ThreadRanks:
    """Implements `StepExecutor`."""

    def __init__(
        self,
        config: EngineConfig,
        library: NativeLibrary,
        *,
        environment: Mapping[str, str] = os.environ,
        limits: GroupLimits = LIMITS,
    ) -> None:
        """Loads a model.

        Args:
            config: what to load, and the plan.
            library: the native kernels, through whose shared memory ranks exchange.
            environment: says where caches are.
            limits: how long ranks wait for each other.

        Raises:
            whatever the first rank that fails raises.
        """
        plan = config.plan
        self.plan = plan
        self.positions = [RankPosition.of(plan, rank) for rank in range(plan.num_ranks)]
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix=f"rank {rank}") for rank in range(plan.num_ranks)]
        self._library = library
        self._under_way: deque[list[Future[tuple[list[SampledToken], RunTimes]]]] = deque()
        with ExitStack() as failure:
            for thread in self._threads:
                failure.callback(thread.shutdown)
            name = f"threads-{uuid.uuid4().hex}"
            self.groups = self._on_all(
                lambda position: join_groups(library, position, name=name, limits=limits), self.positions
            )
            for groups in self.groups:
                failure.callback(groups.close)
            self.ranks: list[LoadedRank] = self._on_all(
                lambda position: _loaded(config, position, self.groups[position.rank], environment), self.positions
            )
            for rank in self.ranks:
                failure.callback(rank.close)
            first = self.ranks[0]
            self.limits = decide_limits(
                config,
                first.shape,
                block_size=first.block_size,
                block_bytes=max(rank.block_bytes for rank in self.ranks),
                host=read_host_resources(),
                used_bytes=sum(rank.used_bytes for rank in self.ranks),
            )
            self.runners: list[ModelRunner] = self._on_all(lambda rank: rank.build(self.limits), self.ranks)
            self._failure = failure.pop_all()

    @property
    def max_in_flight(self) -> int:
        """See `StepExecutor.max_in_flight`."""
        return self.plan.pp

    def submit(self, steps: GroupSteps, *, num_threads: int) -> None:
        """See `StepExecutor.submit`."""
        assert len(self._under_way) < self.max_in_flight, "more steps are under way than there are stages"
        plans = [steps.plans[position.group] for position in self.positions]
        self._under_way.append(
            [
                thread.submit(lambda runner, plan: runner.execute(plan, num_threads=num_threads), runner, plan)
                for thread, runner, plan in zip(self._threads, self.runners, plans, strict=True)
            ]
        )

    def collect(self) -> ExecutedSteps:
        """See `StepExecutor.collect`."""
        ranks = list(zip(self.positions, _results(self._under_way.popleft()), strict=True))
        first_ranks = [(position, times) for position, (_, times) in ranks if position.group == position.place == 0]
        return ExecutedSteps(
            sampled=tuple(sampled for position, (sampled, _) in ranks if position.chooses),
            wall_s=sum(times.busy_s for _, times in first_ranks),
            stage_times=tuple(StageTimes(position.stage, times.busy_s) for position, times in first_ranks),
        )

    def probe(self, num_tokens: int, *, num_threads: int) -> float:
        """See `StepExecutor.probe`."""
        times = self._on_all(lambda runner: runner.probe(num_tokens, num_threads=num_threads), self.runners)
        return max(time.wall_s for time in times)

    def close(self) -> None:
        """See `StepExecutor.close`. May be called again."""
        self._failure.close()

    def chooser(self, group: int = 0) -> ModelRunner:
        """The runner that chooses the tokens of a data-parallel group."""
        (found,) = (
            runner
            for position, runner in zip(self.positions, self.runners, strict=True)
            if position.chooses and position.group == group
        )
        return found

    def _on_all(self, call: Callable[[T], "R"], items: Sequence[T]) -> "list[R]":
        return _results([thread.submit(call, item) for thread, item in zip(self._threads, items, strict=True)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


R = TypeVar("R")


def _results(futures: Sequence[Future[R]]) -> list[R]:
    """Of all; the first failure is raised when all have come to an end."""
    for future in futures:
        future.exception()
    return [future.result() for future in futures]


def _loaded(
    config: EngineConfig, position: RankPosition, groups: RankGroups, environment: Mapping[str, str]
) -> LoadedRank:
    return load_rank(
        config,
        position,
        groups,
        host=read_host_resources(),
        environment=environment,
        report=lambda _: None,
        times=LoadTimes(),
    )


def threaded_engine(
    config: EngineConfig,
    library: NativeLibrary,
    *,
    plan: ParallelPlan,
    environment: Mapping[str, str] = os.environ,
) -> ShardedEngine:
    """An engine on the ranks of a plan. Its `close` ends them.

    Raises:
        whatever the first rank that fails raises.
    """
    ranks = ThreadRanks(
        dataclasses.replace(config, plan=plan, ranks_on_host=plan.num_ranks), library, environment=environment
    )
    description = EngineDescription(
        numerics_id="threads",
        max_model_len=ranks.limits.max_model_len,
        max_num_seqs=ranks.limits.max_num_seqs,
        kv_cache_tokens=ranks.limits.kv_cache_tokens,
        vocab_size=ranks.ranks[0].shape.vocab_size,
        details={},
    )
    return ShardedEngine(
        SchedulerGroups(ranks.limits, num_groups=plan.dp),
        ranks,
        description=description,
        threads=ThreadGovernor(1),
        max_logprobs=config.max_logprobs,
    )
