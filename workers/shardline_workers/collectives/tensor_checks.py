"""Arguments of a communicator that cannot work, found before anything is exchanged. Each function raises ValueError."""

from collections.abc import Sequence

import torch

from shardline_workers.communicator import GroupPlace

SUMMED_DTYPES = (torch.float32, torch.bfloat16, torch.float64)


def check_moved(device: torch.device, **tensors: torch.Tensor) -> None:
    """All tensors lie dense on the device and have one dtype."""
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) > 1:
        raise ValueError(f"{' and '.join(tensors)} have the dtypes {sorted(map(str, dtypes))}; they must have one")
    for name, tensor in tensors.items():
        if tensor.device != device:
            raise ValueError(f"{name} is on {tensor.device}; this group exchanges tensors on {device}")
        if not tensor.is_contiguous():
            raise ValueError(f"{name} has the strides {tensor.stride()}; it must be contiguous: call contiguous()")


def check_summed(device: torch.device, **tensors: torch.Tensor) -> None:
    """Besides, their dtype can be summed."""
    check_moved(device, **tensors)
    for name, tensor in tensors.items():
        if tensor.dtype not in SUMMED_DTYPES:
            raise ValueError(f"{name} has dtype {tensor.dtype}; sums take {', '.join(map(str, SUMMED_DTYPES))}")


def check_ranked(place: GroupPlace, *, name: str, ranked: torch.Tensor, shape: torch.Size) -> None:
    """The tensor has a first dimension more than `shape`: the ranks."""
    wanted = (place.num_ranks, *shape)
    if tuple(ranked.shape) != wanted:
        raise ValueError(f"{name} has the shape {tuple(ranked.shape)}; it must be {wanted}")


def check_rank(place: GroupPlace, *, name: str, rank: int) -> None:
    """The rank is one of the group."""
    if not 0 <= rank < place.num_ranks:
        raise ValueError(f"{name} is rank {rank}; it must be 0 … {place.num_ranks - 1}")


def check_peer(place: GroupPlace, *, name: str, rank: int) -> None:
    """Besides, it is another one."""
    check_rank(place, name=name, rank=rank)
    if rank == place.rank:
        raise ValueError(f"{name} is rank {rank} itself; it must be another one")


def check_rows(place: GroupPlace, *, name: str, tensor: torch.Tensor, rows: Sequence[int]) -> None:
    """The tensor has the rows that are told for the ranks."""
    if len(rows) != place.num_ranks or min(rows) < 0:
        raise ValueError(f"the rows of {name} are {list(rows)}; there must be {place.num_ranks} counts, none negative")
    if tensor.dim() == 0 or tensor.shape[0] != sum(rows):
        raise ValueError(f"{name} has the shape {tuple(tensor.shape)}; its rows must be {list(rows)}: {sum(rows)}")


def check_exchange(
    place: GroupPlace,
    device: torch.device,
    *,
    values: torch.Tensor,
    received: torch.Tensor,
    send_rows: Sequence[int],
    receive_rows: Sequence[int],
) -> None:
    """What `all_to_all` is given fits together."""
    check_moved(device, values=values, received=received)
    check_rows(place, name="values", tensor=values, rows=send_rows)
    check_rows(place, name="received", tensor=received, rows=receive_rows)
    if values.shape[1:] != received.shape[1:]:
        raise ValueError(
            f"rows of values have the shape {tuple(values.shape[1:])}, those of received {tuple(received.shape[1:])};"
            " they must have one"
        )
    own = send_rows[place.rank], receive_rows[place.rank]
    if own[0] != own[1]:
        raise ValueError(f"rank {place.rank} sends itself {own[0]} rows and receives {own[1]}; that must be one number")
