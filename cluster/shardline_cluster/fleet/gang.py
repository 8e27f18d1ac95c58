"""The ranks of one replica: their shape, and which of them run where."""

from dataclasses import dataclass, field

from shardline_workers.parallel.parallel_plan import ParallelPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class RankBundle:
    """One tensor-parallel group, which never leaves its node."""

    node: str  # the launcher's name for it
    host: str  # its address
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """What a replica is started as. The controller chooses it anew at each start."""

    plan: ParallelPlan = field(default_factory=ParallelPlan)
    bundles: tuple[RankBundle, ...] = ()  # in the order of ranks; empty: all ranks on one host, whichever it is
    note: str = ""  # why it is not the shape that was asked for

    @property
    def slots(self) -> dict[str, int]:
        """How many ranks each node has."""
        taken: dict[str, int] = {}
        for bundle in self.bundles:
            taken[bundle.node] = taken.get(bundle.node, 0) + len(bundle.ranks)
        return taken
