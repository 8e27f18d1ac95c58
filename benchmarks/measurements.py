"""What one request's stream took, and what many of them say together. Pure: instants in, figures out.

All instants are seconds of one clock; all durations are seconds.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

PERCENTILES = (50, 90, 95, 99)


@dataclass(slots=True)
class Measurement:
    """One request, filled in while it runs."""

    due_at: float  # when the plan wanted it sent
    sent_at: float
    accepted_at: float | None = None
    started_at: float | None = None  # a replica claimed it
    arrivals: list[tuple[float, int]] = field(default_factory=list)  # instant and number of tokens of each event
    ended_at: float | None = None
    prompt_tokens: int = 0
    error: str = ""  # name of the error, or of the end that was no completion

    @property
    def num_tokens(self) -> int:
        """Tokens that were received."""
        return sum(count for _, count in self.arrivals)

    @property
    def first_token_s(self) -> float | None:
        """From sending to the first token."""
        return self.arrivals[0][0] - self.sent_at if self.arrivals else None

    @property
    def per_token_s(self) -> float | None:
        """Mean time between tokens after the first event that had any; None where there is no second one."""
        if len(self.arrivals) < 2:
            return None
        return (self.arrivals[-1][0] - self.arrivals[0][0]) / (self.num_tokens - self.arrivals[0][1])

    def inter_token_s(self) -> list[float]:
        """For each token after the first event: the pause before its event, shared among the event's tokens."""
        gaps: list[float] = []
        for (before, _), (instant, count) in zip(self.arrivals, self.arrivals[1:], strict=False):
            gaps.extend([(instant - before) / count] * count)
        return gaps


def summarise(measurements: Sequence[Measurement], *, began: float, ended: float) -> dict[str, object]:
    """The figures of a load. Only requests that completed count in times and throughput; the others are errors."""
    done = [m for m in measurements if not m.error and m.ended_at is not None]
    duration_s = ended - began
    output_tokens = sum(m.num_tokens for m in done)
    return {
        "duration_s": round(duration_s, 3),
        "requests": len(measurements),
        "completed": len(done),
        "errors": dict(sorted(Counter(m.error for m in measurements if m.error).items())),
        "prompt_tokens": sum(m.prompt_tokens for m in done),
        "output_tokens": output_tokens,
        "requests_per_s": round(len(done) / duration_s, 3),
        "output_tokens_per_s": round(output_tokens / duration_s, 2),
        "time_to_first_token_ms": distribution(_known([m.first_token_s for m in done])),
        "time_per_output_token_ms": distribution(_known([m.per_token_s for m in done])),
        "inter_token_ms": distribution([gap for m in done for gap in m.inter_token_s()]),
        "end_to_end_ms": distribution([m.ended_at - m.sent_at for m in done if m.ended_at is not None]),
        "accept_ms": distribution([m.accepted_at - m.sent_at for m in done if m.accepted_at is not None]),
        "sent_late_ms": distribution([m.sent_at - m.due_at for m in measurements]),
    }


def distribution(seconds: Sequence[float]) -> dict[str, float] | None:
    """Mean, percentiles and extremes in milliseconds; None where there is nothing to tell."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    figures = {"mean": sum(ordered) / len(ordered), "min": ordered[0], "max": ordered[-1]}
    figures |= {f"p{percent}": percentile(ordered, percent) for percent in PERCENTILES}
    return {name: round(value * 1000, 3) for name, value in figures.items()}


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the sorted values lie, interpolated between neighbours."""
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]
