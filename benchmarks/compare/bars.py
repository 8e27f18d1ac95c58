"""How far ahead we want to be, as data, and how far we are. Pure: samples in, verdicts out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from benchmarks.compare.points import FORMAT_TO_PRECISION, LLAMA, OURS
from benchmarks.compare.samples import Place, Sample, Spread, by_round, paired_ratios


class Sense(Enum):
    """How a ratio, ours by theirs, is judged."""

    AT_LEAST = "≥"
    AT_MOST = "≤"
    WITHIN = "±"  # 1 plus or minus so much


class Rivals(Enum):
    """Whom we compare ourselves with."""

    SAME_PRECISION = "best peer at the same precision"
    ALL = "best of all peers"
    LLAMA_SAME_FILE = "llama.cpp on the same file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A ratio that is wanted, for each of some formats."""

    part: str
    point: str
    figure: str
    formats: tuple[str, ...]
    wanted: float
    goal: float | None = None
    sense: Sense = Sense.AT_LEAST
    rivals: Rivals = Rivals.SAME_PRECISION


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A bar beside what was measured, for one format."""

    bar: Bar
    format: str
    rival: str  # contender and its format
    ours: Spread
    theirs: Spread
    ratio: Spread  # of each round's pair

    @property
    def met(self) -> bool:
        """Whether the median ratio is good enough."""
        return _is_met(self.bar.sense, self.ratio.median, self.bar.wanted)

    @property
    def goal_met(self) -> bool:
        """Whether it is what we hoped for beyond that; False where there is no such goal."""
        return self.bar.goal is not None and _is_met(self.bar.sense, self.ratio.median, self.bar.goal)


_W4, _W8, _BF16 = ("Q4_0", "Q4_1"), ("Q8_0",), ("BF16",)
_ALL = (*_W4, *_W8, *_BF16)


def _engine(point: str, formats: tuple[str, ...], wanted: float, *, goal: float | None = None) -> Bar:
    return Bar(part="engines", point=point, figure="tokens_per_s", formats=formats, wanted=wanted, goal=goal)


BARS = (
    _engine("decode 1", _W4, 1.4, goal=1.6),
    _engine("decode 1", _W8, 1.3, goal=1.4),
    _engine("decode 1", _BF16, 1.05, goal=1.15),
    _engine("decode 4", (*_W4, *_W8), 2.5),
    _engine("decode 4", _BF16, 1.7),
    _engine("decode 16", (*_W4, *_W8), 2.5, goal=3.0),
    _engine("decode 16", _BF16, 1.7, goal=2.0),
    _engine("prefill 512", (*_W4, *_W8), 2.2, goal=2.8),
    _engine("prefill 512", _BF16, 1.4, goal=1.6),
    Bar(part="servers", point="streams 1", figure="decode_tokens_per_s", formats=_W4, wanted=1.3, goal=1.6),
    Bar(
        part="servers",
        point="streams 16",
        figure="tokens_per_s",
        formats=(*_W4, *_W8),
        wanted=2.0,
        goal=2.5,
        rivals=Rivals.ALL,
    ),
    Bar(part="servers", point="streams 16", figure="tokens_per_s", formats=_BF16, wanted=1.5, goal=2.0),
    *(
        Bar(
            part="servers",
            point=f"streams {size}",
            figure="first_token_p50_ms",
            formats=_ALL,
            wanted=1.0,
            sense=Sense.AT_MOST,
        )
        for size in (1, 4, 16)
    ),
    Bar(
        part="memory",
        point="weights and KV",
        figure="mib",
        formats=_ALL,
        wanted=1.1,
        sense=Sense.AT_MOST,
        rivals=Rivals.LLAMA_SAME_FILE,
    ),
    Bar(
        part="perplexity",
        point="fixed text",
        figure="perplexity",
        formats=_ALL,
        wanted=0.005,
        sense=Sense.WITHIN,
        rivals=Rivals.LLAMA_SAME_FILE,
    ),
)


def judge(samples: Iterable[Sample], bars: Sequence[Bar] = BARS) -> list[Verdict]:
    """A verdict for every bar and format that we and a rival were measured for."""
    values = by_round(samples)
    found = [_verdict(bar, name, values) for bar in bars for name in bar.formats]
    return [verdict for verdict in found if verdict is not None]


def _verdict(bar: Bar, format_name: str, values: Mapping[Place, Mapping[int, float]]) -> Verdict | None:
    ours = values.get(Place(bar.part, bar.point, format_name, OURS, bar.figure))
    theirs = {place: value for place, value in values.items() if _is_rival(bar, format_name, place)}
    pairs = {} if ours is None else {place: paired_ratios(ours, value) for place, value in theirs.items()}
    ratios = {place: Spread.of(pair) for place, pair in pairs.items() if pair}
    if ours is None or not ratios:
        return None
    hardest = (max if bar.sense is Sense.AT_MOST else min)(ratios, key=lambda place: ratios[place].median)
    return Verdict(
        bar=bar,
        format=format_name,
        rival=f"{hardest.contender} {hardest.format}",
        ours=Spread.of(list(ours.values())),
        theirs=Spread.of(list(theirs[hardest].values())),
        ratio=ratios[hardest],
    )


def _is_rival(bar: Bar, format_name: str, place: Place) -> bool:
    if (place.part, place.point, place.figure) != (bar.part, bar.point, bar.figure) or place.contender == OURS:
        return False
    if bar.rivals is Rivals.LLAMA_SAME_FILE:
        return place.contender == LLAMA and place.format == format_name
    same = FORMAT_TO_PRECISION[place.format] == FORMAT_TO_PRECISION[format_name]
    return same or bar.rivals is Rivals.ALL


def _is_met(sense: Sense, ratio: float, wanted: float) -> bool:
    if sense is Sense.WITHIN:
        return abs(ratio - 1.0) <= wanted
    return ratio >= wanted if sense is Sense.AT_LEAST else ratio <= wanted


def verdict_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """A table of the verdicts, in Markdown."""
    lines = [
        "| what | format | ours | rival | theirs | ratio (range) | wanted (goal) | met |",
        "| --- | --- | --: | --- | --: | --- | --- | --- |",
    ]
    return lines + [_verdict_line(verdict) for verdict in verdicts]


def _verdict_line(verdict: Verdict) -> str:
    bar, ratio = verdict.bar, verdict.ratio
    goal = "" if bar.goal is None else f" ({bar.goal:g})"
    digits = 4 if bar.sense is Sense.WITHIN else 2
    met = "goal" if verdict.goal_met else "yes" if verdict.met else "NO"
    return (
        f"| {bar.part}: {bar.point}, {bar.figure} | {verdict.format} | {verdict.ours.median:.4g} | {verdict.rival} |"
        f" {verdict.theirs.median:.4g} | {ratio.median:.{digits}f} ({ratio.least:.{digits}f}–{ratio.most:.{digits}f}) |"
        f" {bar.sense.value} {bar.wanted:g}{goal} | {met} |"
    )
