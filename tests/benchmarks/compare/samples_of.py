"""Samples for tests: one figure a round."""

from collections.abc import Sequence

from benchmarks.compare.samples import Sample


def samples_of(
    contender: str,
    values: Sequence[float],
    *,
    part: str = "engines",
    point: str = "decode 1",
    format_name: str = "Q8_0",
    figure: str = "tokens_per_s",
    first_round: int = 0,
) -> list[Sample]:
    """One sample a round."""
    return [
        Sample(
            part=part,
            point=point,
            format=format_name,
            contender=contender,
            round=first_round + number,
            figures={figure: value},
            noise={"others_cpu_share": 0.01 * number},
        )
        for number, value in enumerate(values)
    ]
