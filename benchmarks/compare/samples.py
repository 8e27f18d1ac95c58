"""What was measured, round by round, and what the rounds say together. Pure."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One contender at one point in one round."""

    part: str
    point: str
    format: str  # of the weights that this contender computed with
    contender: str
    round: int
    figures: Mapping[str, float]
    noise: Mapping[str, float] = field(default_factory=dict)  # what else the machine did meanwhile
    build: str = ""  # of a contender that has several

    def to_json(self) -> dict[str, object]:
        """As the result file holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Sample":
        """The reverse of `to_json`."""
        return cls(**told)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range of the rounds."""

    median: float
    least: float
    most: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        assert values, "a spread of nothing was asked for"
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a figure belongs."""

    part: str
    point: str
    format: str
    contender: str
    figure: str


def by_round(samples: Iterable[Sample]) -> dict[Place, dict[int, float]]:
    """For each place its figure in every round. A round that was measured twice keeps the later value."""
    found: dict[Place, dict[int, float]] = {}
    for sample in samples:
        for figure, value in sample.figures.items():
            place = Place(sample.part, sample.point, sample.format, sample.contender, figure)
            found.setdefault(place, {})[sample.round] = value
    return found


def spreads(samples: Iterable[Sample]) -> dict[Place, Spread]:
    """For each place the spread over its rounds."""
    return {place: Spread.of(list(values.values())) for place, values in by_round(samples).items()}


def paired_ratios(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """Ours by theirs in every round that both have: they stood side by side, so that drift cancels.

    Where they have no round in common, the first of ours by the first of theirs, and so on.
    """
    shared = sorted(ours.keys() & theirs.keys())
    pairs = (
        [(ours[number], theirs[number]) for number in shared]
        if shared
        else zip([ours[number] for number in sorted(ours)], [theirs[number] for number in sorted(theirs)], strict=False)
    )
    return [mine / other for mine, other in pairs if other]


def noise_summary(samples: Iterable[Sample]) -> dict[str, Spread]:
    """What else ran on the machine, over all measurements."""
    values: dict[str, list[float]] = {}
    for sample in samples:
        for name, value in sample.noise.items():
            values.setdefault(name, []).append(value)
    return {name: Spread.of(found) for name, found in values.items()}
