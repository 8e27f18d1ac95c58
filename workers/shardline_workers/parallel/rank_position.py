"""Where one rank stands in the grid of a `ParallelPlan`, and with whom it exchanges what."""

from dataclasses import dataclass
from typing import Self

from shardline_workers.parallel.parallel_plan import ParallelPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPosition:
    """One rank. The grid is drawn at `ParallelPlan`; a group's ranks stand in the order of their place in it."""

    plan: ParallelPlan
    stage: int  # of the pipeline: which layers
    group: int  # of data parallelism: which requests
    place: int  # of tensor parallelism: which part of each matrix

    @classmethod
    def of(cls, plan: ParallelPlan, rank: int) -> Self:
        """The position of a rank.

        Raises:
            ValueError: the plan has no such rank.
        """
        if not 0 <= rank < plan.num_ranks:
            raise ValueError(f"rank is {rank}; it must be 0 to {plan.num_ranks - 1}, since the plan is {plan}")
        row, place = divmod(rank, plan.tp)
        stage, group = divmod(row, plan.dp)
        return cls(plan=plan, stage=stage, group=group, place=place)

    @property
    def rank(self) -> int:
        """Its number."""
        return self.plan.rank(stage=self.stage, group=self.group, place=self.place)

    @property
    def tensor_ranks(self) -> tuple[int, ...]:
        """Ranks that share its matrices, itself included."""
        first = self.rank - self.place
        return tuple(range(first, first + self.plan.tp))

    @property
    def stage_ranks(self) -> tuple[int, ...]:
        """Ranks of its stage, itself included: experts are dealt to them."""
        size = self.plan.tp * self.plan.dp
        return tuple(range(self.stage * size, (self.stage + 1) * size))

    @property
    def expert_part(self) -> int:
        """Which part of the experts it has."""
        return self.plan.expert_part(group=self.group, place=self.place)

    @property
    def is_first_stage(self) -> bool:
        """Whether it has the embedding."""
        return self.stage == 0

    @property
    def is_last_stage(self) -> bool:
        """Whether it has the head."""
        return self.stage == self.plan.pp - 1

    @property
    def chooses(self) -> bool:
        """Whether it chooses the tokens of its group."""
        return self.is_last_stage and self.place == 0

    @property
    def name(self) -> str:
        """For keys of caches, with the plan: equal names mean equal parts of equal files, whichever the group."""
        part = f"-ep{self.expert_part}of{self.plan.ep}"
        return f"tp{self.place}of{self.plan.tp}-pp{self.stage}of{self.plan.pp}{part if self.plan.ep > 1 else ''}"
