"""Logits of ranks that share a vocabulary come together on the first of them: what a choice needs, and no more.

Of a row of which few tokens can be chosen, each rank tells its greatest logits and their ids. All ranks know how many:
so no sizes are sent.

    rank 0   ids 0 … 4    [ 3 | 1 | 9 | 2 | 4 ]   ─┐  num_candidates 2     logits of rank 0, ids 0 … 9
    rank 1   ids 5 … 9    [ 0 | 7 | 6 | 5 | 8 ]   ─┴──────────────────▶    [ · | · | 9 | · | 4 | · | 7 | · | · | 8 ]
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from shardline_workers.communicator import Communicator
from shardline_workers.kernels.reference_sampling import likeliest


def gather(
    logits: Tensor | None,
    rank_logits: Tensor,
    group: Communicator,
    *,
    rank_sizes: Sequence[int],
    num_candidates: Sequence[int],
) -> None:
    """See `Operations.gather_logits`; one of `num_candidates` for each row that counts."""
    own = rank_logits[: len(num_candidates)]
    if logits is None:
        _send(own, group, num_candidates)
        return
    starts = accumulate(rank_sizes, initial=0)
    for rank, (first_id, size) in enumerate(zip(starts, rank_sizes, strict=False)):
        columns = logits[: len(num_candidates), first_id : first_id + size]
        if rank == group.place.rank:
            columns.copy_(own)
        else:
            _receive(columns, group, rank, num_candidates)


def _send(own: Tensor, group: Communicator, num_candidates: Sequence[int]) -> None:
    whole, few = _division(num_candidates, own.shape[1])
    if whole:
        group.send(own[whole], 0)
    for row in few:
        ids = likeliest(own[row], num_candidates[row])
        group.send(own[row][ids], 0)
        group.send(ids.to(torch.int32), 0)


def _receive(columns: Tensor, group: Communicator, rank: int, num_candidates: Sequence[int]) -> None:
    whole, few = _division(num_candidates, columns.shape[1])
    if whole:
        rows = columns.new_empty((len(whole), columns.shape[1]))
        group.recv(rows, rank)
        columns[whole] = rows
    for row in few:
        values = columns.new_empty(num_candidates[row])
        ids = torch.empty(num_candidates[row], dtype=torch.int32, device=columns.device)
        group.recv(values, rank)
        group.recv(ids, rank)
        columns[row] = -torch.inf
        columns[row][ids.long()] = values


def _division(num_candidates: Sequence[int], size: int) -> tuple[list[int], list[int]]:
    """Rows of which a rank with so many ids tells all, and rows of which it tells few: ids are numbers, too."""
    rows: tuple[list[int], list[int]] = [], []
    for row, count in enumerate(num_candidates):
        rows[0 < 2 * count < size].append(row)
    return rows
