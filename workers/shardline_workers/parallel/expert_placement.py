"""Which experts of a layer lie on which parts of a stage, and which copy of an expert a token takes. Any numbers.

7 experts, 3 parts            4 experts, 3 parts, 2 copies more, expert 1 the hottest
part 0: 0 1 2                 part 0: 1 3
part 1: 3 4                   part 1: 0 1
part 2: 5 6                   part 2: 1 2
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from shardline_workers.parallel.head_split import even_spans


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementWish:
    """How experts are to be dealt out. Checked at birth."""

    num_redundant: int = 0  # copies of a layer's experts beside the first ones
    # Tokens that took each expert, by layer; one row: of every layer.
    loads: tuple[tuple[int, ...], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.num_redundant < 0:
            raise ValueError(f"num_redundant is {self.num_redundant}; it must be at least 0")
        if any(load < 0 for layer in self.loads for load in layer):
            raise ValueError("the load of an expert is below 0; it must be a count of tokens")

    def loads_of(self, layer: int) -> tuple[int, ...] | None:
        """Those of a layer's experts; None where they are not known."""
        if len(self.loads) == 1:
            return self.loads[0]
        return self.loads[layer] if layer < len(self.loads) and self.loads[layer] else None


@dataclass(frozen=True, slots=True)
class ExpertPlacement:
    """One layer's experts on parts."""

    part_experts: tuple[tuple[int, ...], ...]  # by part, ascending ids; each expert on one part at least

    @property
    def has_copies(self) -> bool:
        """Whether an expert is on several parts."""
        return sum(map(len, self.part_experts)) > len({expert for part in self.part_experts for expert in part})

    def parts_of(self, expert: int) -> tuple[int, ...]:
        """The parts that have it, ascending."""
        return tuple(part for part, experts in enumerate(self.part_experts) if expert in experts)

    def part_for(self, expert: int, position: int) -> int:
        """Which part computes an expert for a token at a position of its sequence.

        All copies take turns along a sequence, whatever else is in a batch: every rank decides alike, and so does every
        run.
        """
        parts = self.parts_of(expert)
        return parts[position % len(parts)]

    def part_loads(self, loads: Sequence[int]) -> tuple[float, ...]:
        """What falls to each part where so much falls to each expert, and is shared evenly by its copies."""
        num_copies = Counter(chain.from_iterable(self.part_experts))
        return tuple(sum(loads[expert] / num_copies[expert] for expert in experts) for experts in self.part_experts)


def place_experts(
    num_experts: int, num_parts: int, *, loads: Sequence[int] | None = None, num_redundant: int = 0
) -> ExpertPlacement:
    """Deals experts out: parts have as many, or differ by one.

    Without loads, neighbours stay together. With loads, the hottest experts are copied, and parts carry about as much.

    Args:
        num_experts: of the layer.
        num_parts: to deal them to.
        loads: of each expert; None: they are the same.
        num_redundant: copies to make beside the first ones.

    Raises:
        ValueError: there are more parts than experts, more copies than parts could have, or loads of another model.
    """
    if not 1 <= num_parts <= num_experts:
        raise ValueError(f"{num_experts} experts cannot be dealt to {num_parts} parts: take ep of 1 to {num_experts}")
    most = num_experts * (num_parts - 1)
    if not 0 <= num_redundant <= most:
        raise ValueError(
            f"{num_redundant} redundant copies were asked for; {num_experts} experts on {num_parts} parts have room "
            f"for 0 to {most}, since a part never has an expert twice"
        )
    if loads is not None and len(loads) != num_experts:
        raise ValueError(f"loads of {len(loads)} experts were given; the layer has {num_experts}")
    if loads is None and num_redundant == 0:
        return ExpertPlacement(tuple(tuple(span) for span in even_spans(num_experts, num_parts)))
    return _dealt(list(loads or [1] * num_experts), num_parts, num_redundant)


def _dealt(loads: Sequence[int], num_parts: int, num_redundant: int) -> ExpertPlacement:
    """The hottest first, each to the parts with the fewest experts, of these to those that carry least."""
    num_copies = _num_copies(loads, num_parts, num_redundant)
    shares = [load / copies for load, copies in zip(loads, num_copies, strict=True)]
    parts: list[list[int]] = [[] for _ in range(num_parts)]
    for expert in sorted(range(len(loads)), key=lambda expert: (-shares[expert], expert)):
        emptiest = sorted(
            range(num_parts), key=lambda part: (len(parts[part]), sum(shares[other] for other in parts[part]), part)
        )
        for part in emptiest[: num_copies[expert]]:
            parts[part].append(expert)
    while _swap_helps(parts, shares):
        pass
    return ExpertPlacement(tuple(tuple(sorted(experts)) for experts in parts))


def _num_copies(loads: Sequence[int], num_parts: int, num_redundant: int) -> list[int]:
    """Copies go one by one to the expert of whose copies each carries most."""
    copies = [1] * len(loads)
    for _ in range(num_redundant):
        free = (expert for expert in range(len(loads)) if copies[expert] < num_parts)
        copies[max(free, key=lambda expert: (loads[expert] / copies[expert], -expert))] += 1
    return copies


def _swap_helps(parts: list[list[int]], shares: Sequence[float]) -> bool:
    """Swaps the two experts that relieve the part that carries most; False where no swap does."""
    carried = [sum(shares[expert] for expert in experts) for experts in parts]
    hottest = max(range(len(parts)), key=lambda part: carried[part])
    best_most, best = carried[hottest] * (1 - 1e-9), None  # what rounding alone would win is not worth a swap
    for part, experts in enumerate(parts):
        for given in set(parts[hottest]) - set(experts):
            for taken in set(experts) - set(parts[hottest]):
                moved = shares[given] - shares[taken]
                most = max(carried[hottest] - moved, carried[part] + moved)
                if most < best_most:
                    best_most, best = most, (part, given, taken)
    if best is None:
        return False
    part, given, taken = best
    parts[hottest][parts[hottest].index(given)] = taken
    parts[part][parts[part].index(taken)] = given
    return True
