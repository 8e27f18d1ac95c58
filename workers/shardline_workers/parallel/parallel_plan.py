"""The shape in which a replica's ranks share one model."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelPlan:
    """How many ranks share what. Checked at birth.

    tp   tensor parallel: ranks that share each matrix, inside one node
    pp   pipeline parallel: stages, each with a range of layers
    dp   data parallel: groups that attend to other requests, but step together
    ep   expert parallel: over how many parts of a stage the experts are dealt; 1: each tp group has them all, cut as
         other matrices are

    Ranks are counted tp first, then dp, then pp: `rank = (stage * dp + group) * tp + place`. For tp=2, dp=2, pp=2:

                    group 0           group 1
                 place 0  place 1  place 0  place 1
                ┌────────────────┬────────────────┐
        stage 0 │    0        1  │    2        3  │   layers of the first range, embedding
                ├────────────────┼────────────────┤
        stage 1 │    4        5  │    6        7  │   layers of the last range, head
                └────────────────┴────────────────┘

    Neighbours in a box reduce (tp); boxes above each other send activations down (pp); boxes beside each other have the
    same attention weights (dp). Experts are dealt to a whole row: with ep=4 each rank has a quarter of them; with ep=2
    ranks 0, 1 have one half and 2, 3 the other, each expert cut in `expert_tp` = 2.
    """

    tp: int = 1
    pp: int = 1
    ep: int = 1
    dp: int = 1

    def __post_init__(self) -> None:
        for name, size in (("tp", self.tp), ("pp", self.pp), ("ep", self.ep), ("dp", self.dp)):
            if size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        row = self.tp * self.dp
        if self.ep > 1 and (row % self.ep or self.ep % self.dp):
            raise ValueError(
                f"ep is {self.ep}; it must be 1, or divide tp * dp = {row} and be a multiple of dp = {self.dp}: one of "
                f"{', '.join(map(str, possible_ep(tp=self.tp, dp=self.dp)))}"
            )

    @property
    def num_ranks(self) -> int:
        """Of one replica: its GPUs."""
        return self.tp * self.dp * self.pp

    @property
    def expert_tp(self) -> int:
        """Ranks that share the matrices of one expert."""
        return self.tp if self.ep == 1 else self.tp * self.dp // self.ep

    def rank(self, *, stage: int, group: int, place: int) -> int:
        """The number of one rank."""
        self._check_position("stage", stage, self.pp)
        self._check_position("group", group, self.dp)
        self._check_position("place", place, self.tp)
        return (stage * self.dp + group) * self.tp + place

    def expert_part(self, *, group: int, place: int) -> int:
        """Which of the `ep` parts of the experts a rank has."""
        return 0 if self.ep == 1 else (group * self.tp + place) // self.expert_tp

    def _check_position(self, name: str, position: int, size: int) -> None:
        if not 0 <= position < size:
            raise ValueError(f"{name} is {position}; it must be 0 to {size - 1}")

    def __str__(self) -> str:
        """`tp=2 pp=2`: what is 1 is left out, except tp."""
        sizes = (("pp", self.pp), ("ep", self.ep), ("dp", self.dp))
        return " ".join([f"tp={self.tp}", *(f"{name}={size}" for name, size in sizes if size > 1)])


def possible_ep(*, tp: int, dp: int) -> tuple[int, ...]:
    """All numbers of expert parts that a row of tp * dp ranks can have, 1 first."""
    row = tp * dp
    return (1, *(ep for ep in range(2, row + 1) if row % ep == 0 and ep % dp == 0))
