"""Which attention heads belong to which rank of a tensor-parallel group. Any numbers are allowed.

Query heads stay with the key-value head that they share: whole groups go to ranks, the first ranks have one more. Where
there are more ranks than key-value heads, a key-value head is copied to several ranks, which share its query heads.

    9 heads, 3 key-value heads, 2 ranks        6 heads, 2 key-value heads, 3 ranks
    rank 0: q 0 1 2 3 4 5  kv 0 1              rank 0: q 0 1  kv 0
    rank 1: q 6 7 8        kv 2                rank 1: q 2    kv 0
                                               rank 2: q 3 4 5  kv 1

Kernels want as many query heads for each key-value head of a rank. Of all divisions in which they get that, these have
the least key-value heads on the fullest rank, which decide how long a context fits, and then the least query heads.
"""

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class HeadShard:
    """One rank's heads."""

    query_heads: range
    kv_heads: range


def even_spans(count: int, num_parts: int) -> tuple[range, ...]:
    """`count` neighbours in `num_parts` spans that differ by one at most, the longer ones first; some may be empty.

    Raises:
        ValueError: there is no part.
    """
    if num_parts < 1:
        raise ValueError(f"{count} things cannot be dealt to {num_parts} parts; there must be at least 1")
    least, more = divmod(count, num_parts)
    starts = [part * least + min(part, more) for part in range(num_parts + 1)]
    return tuple(range(start, end) for start, end in pairwise(starts))


def split_heads(*, num_heads: int, num_kv_heads: int, num_ranks: int) -> tuple[HeadShard, ...]:
    """The heads of each rank: every query head once, and with each the key-value head that it reads.

    Raises:
        ValueError: heads do not share key-value heads evenly, or there are more ranks than heads.
    """
    if num_kv_heads < 1 or num_heads % num_kv_heads:
        raise ValueError(f"{num_heads} heads cannot share {num_kv_heads} key-value heads evenly")
    if not 1 <= num_ranks <= num_heads:
        raise ValueError(f"{num_heads} heads cannot be dealt to {num_ranks} ranks: take 1 to {num_heads}")
    group_size = num_heads // num_kv_heads
    if num_ranks <= num_kv_heads:
        spans = even_spans(num_kv_heads, num_ranks)
        return tuple(HeadShard(range(kv.start * group_size, kv.stop * group_size), kv) for kv in spans)
    return tuple(
        HeadShard(range(kv * group_size + part.start, kv * group_size + part.stop), range(kv, kv + 1))
        for kv, sharers in enumerate(even_spans(num_ranks, num_kv_heads))
        for part in even_spans(group_size, len(sharers))
    )
