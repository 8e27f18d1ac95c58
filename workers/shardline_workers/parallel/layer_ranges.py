"""Which layers belong to which pipeline stage: ranges of about equal bytes."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import inf


def balanced_ranges(
    layer_bytes: Sequence[int], num_stages: int, *, first_bytes: int = 0, last_bytes: int = 0
) -> tuple[range, ...]:
    """Contiguous ranges of at least one layer, such that the largest stage is as small as can be.

    Of all such divisions it is the one in which stages differ least (least sum of squares).

    Args:
        layer_bytes: of each layer.
        num_stages: ranges to make.
        first_bytes: what the first stage has besides (embedding).
        last_bytes: what the last stage has besides (head).

    Raises:
        ValueError: there are more stages than layers.
    """
    if not 1 <= num_stages <= len(layer_bytes):
        raise ValueError(f"{len(layer_bytes)} layers cannot make {num_stages} stages: take 1 to {len(layer_bytes)}")
    sums = list(accumulate(layer_bytes, initial=0))
    sums = [sums[0], *(total + first_bytes for total in sums[1:-1]), sums[-1] + first_bytes + last_bytes]
    limit = _least_largest(sums, num_stages)
    return _most_even(sums, num_stages, limit=limit)


def _least_largest(sums: Sequence[int], num_stages: int) -> int:
    """The size of the largest stage in the best division, by bisection. `sums` are those of all layers before."""
    low, high = 0, sums[-1]
    while low < high:
        middle = (low + high) // 2
        if _fewest_stages(sums, limit=middle) <= num_stages:
            high = middle
        else:
            low = middle + 1
    return low


def _fewest_stages(sums: Sequence[int], *, limit: int) -> float:
    """Stages that are needed if none may be larger than `limit`; fewer than asked for can always be cut further."""
    stages, start = 1, 0
    for before, end in pairwise(sums):
        if end - start > limit:
            stages, start = stages + 1, before
            if end - start > limit:
                return inf
    return stages


def _most_even(sums: Sequence[int], num_stages: int, *, limit: int) -> tuple[range, ...]:
    """The division with the least sum of squares whose stages are within `limit`, by dynamic programming."""
    num_layers = len(sums) - 1
    costs: list[float] = [0.0, *[inf] * num_layers]  # of the best division of the layers before, into so many stages
    origins: list[list[int]] = []  # of each stage: where the stage that ends here begins
    for stage in range(1, num_stages + 1):
        previous, costs, starts = costs, [inf] * (num_layers + 1), [0] * (num_layers + 1)
        for end in range(stage, num_layers + 1):
            for start in range(end - 1, stage - 2, -1):
                size = sums[end] - sums[start]
                if size > limit:
                    break
                if (cost := previous[start] + float(size) ** 2) < costs[end]:
                    costs[end], starts[end] = cost, start
        origins.append(starts)
    ranges: list[range] = []
    end = num_layers
    for starts in reversed(origins):
        ranges.append(range(starts[end], end))
        end = starts[end]
    return tuple(reversed(ranges))
