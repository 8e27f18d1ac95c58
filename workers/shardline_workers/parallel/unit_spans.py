"""Rows or columns of a matrix dealt out in units that stay together."""

from math import ceil

from shardline_workers.parallel.head_split import even_spans

WIDTH_UNIT = 32  # of a matrix's width: numbers that share a scale stay together


def unit_spans(count: int, num_parts: int, *, unit: int, least: int = 1) -> tuple[range, ...]:
    """`count` neighbours in `num_parts` spans that begin at multiples of `unit`; the last unit may be a shorter one.
    Where there are fewer units than parts, smaller units are taken: halves, quarters …, down to `least`, of which
    `unit` is a multiple by a power of two.

    Raises:
        ValueError: there are fewer of the least units than parts.
    """
    if not 1 <= num_parts <= ceil(count / least):
        raise ValueError(
            f"{count} rows or columns that can be cut at multiples of {least} cannot be dealt to {num_parts} ranks:"
            f" take 1 to {ceil(count / least)}"
        )
    while ceil(count / unit) < num_parts:
        unit = max(unit // 2, least)
    return tuple(
        range(part.start * unit, min(part.stop * unit, count)) for part in even_spans(ceil(count / unit), num_parts)
    )
