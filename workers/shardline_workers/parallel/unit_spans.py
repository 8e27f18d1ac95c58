"""Rows or columns of a matrix dealt out in units that stay together."""

from math import ceil

from shardline_workers.parallel.head_split import even_spans


def unit_spans(count: int, num_parts: int, *, unit: int) -> tuple[range, ...]:
    """`count` neighbours in `num_parts` spans that begin at multiples of `unit`; the last unit may be a shorter one.
    Where there are fewer units than parts, smaller units are taken.

    Raises:
        ValueError: there are fewer rows or columns than parts.
    """
    if not 1 <= num_parts <= count:
        raise ValueError(f"{count} rows or columns cannot be dealt to {num_parts} ranks: take 1 to {count}")
    while ceil(count / unit) < num_parts:
        unit //= 2
    return tuple(
        range(part.start * unit, min(part.stop * unit, count)) for part in even_spans(ceil(count / unit), num_parts)
    )
