"""Which rank process becomes which rank. Pure."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def seat_ranks(processes: Sequence[T], only_ranks: Sequence[int | None], *, num_ranks: int) -> Mapping[int, T]:
    """The process of each rank but 0, which is the leader; ranks that nobody can be are missing.

    Args:
        processes: in the order in which they came.
        only_ranks: of each: the only rank that it may become; None: any that nobody else must be.
        num_ranks: of the gang, the leader included.
    """
    wanted = range(1, num_ranks)
    seated: dict[int, T] = {}
    for process, rank in zip(processes, only_ranks, strict=True):
        if rank is not None and rank in wanted:
            seated.setdefault(rank, process)
    free = iter([rank for rank in wanted if rank not in seated])
    for process, rank in zip(processes, only_ranks, strict=True):
        if rank is None and (seat := next(free, None)) is not None:
            seated[seat] = process
    return seated
