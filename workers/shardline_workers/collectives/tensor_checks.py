"""Arguments of a communicator that cannot work, found before anything is exchanged."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from shardline_workers.communicator import GroupPlace

SUMMED_DTYPES = (torch.float32, torch.bfloat16, torch.float64)


@dataclass(frozen=True, slots=True)
class CallChecks:
    """Of one rank's calls, whichever way the bytes take: a method for each call. Each raises ValueError."""

    place: GroupPlace
    device: torch.device

    def all_reduce(self, values: torch.Tensor) -> None:
        """See `Communicator.all_reduce_sum`."""
        self._summed(values=values)

    def all_gather(self, values: torch.Tensor, gathered: torch.Tensor) -> None:
        """See `Communicator.all_gather`."""
        self._moved(values=values, gathered=gathered)
        self._ranked("gathered", gathered, shape=values.shape)

    def reduce_scatter(self, values: torch.Tensor, reduced: torch.Tensor) -> None:
        """See `Communicator.reduce_scatter_sum`."""
        self._summed(values=values, reduced=reduced)
        self._ranked("values", values, shape=reduced.shape)

    def broadcast(self, values: torch.Tensor, source: int) -> None:
        """See `Communicator.broadcast`."""
        self._moved(values=values)
        self._rank("source", source)

    def message(self, values: torch.Tensor, *, destination: int | None = None, source: int | None = None) -> None:
        """See `Communicator.send` and `recv`: one of the two peers."""
        self._moved(values=values)
        for name, rank in (("destination", destination), ("source", source)):
            if rank is not None:
                self._peer(name, rank)

    def all_to_all(
        self,
        values: torch.Tensor,
        received: torch.Tensor,
        *,
        send_rows: Sequence[int],
        receive_rows: Sequence[int],
    ) -> None:
        """See `Communicator.all_to_all`."""
        self._moved(values=values, received=received)
        self._rows("values", values, rows=send_rows)
        self._rows("received", received, rows=receive_rows)
        if values.shape[1:] != received.shape[1:]:
            raise ValueError(
                f"rows of values have the shape {tuple(values.shape[1:])}, those of received"
                f" {tuple(received.shape[1:])}; they must have one"
            )
        rank = self.place.rank
        if send_rows[rank] != receive_rows[rank]:
            raise ValueError(
                f"rank {rank} sends itself {send_rows[rank]} rows and receives {receive_rows[rank]}; that must be one"
                " number"
            )

    def _moved(self, **tensors: torch.Tensor) -> None:
        """All tensors lie dense on the device and have one dtype."""
        dtypes = {tensor.dtype for tensor in tensors.values()}
        if len(dtypes) > 1:
            raise ValueError(f"{' and '.join(tensors)} have the dtypes {sorted(map(str, dtypes))}; they must have one")
        for name, tensor in tensors.items():
            if tensor.device != self.device:
                raise ValueError(f"{name} is on {tensor.device}; this group exchanges tensors on {self.device}")
            if not tensor.is_contiguous():
                raise ValueError(f"{name} has the strides {tensor.stride()}; it must be contiguous: call contiguous()")

    def _summed(self, **tensors: torch.Tensor) -> None:
        """Besides, their dtype can be summed."""
        self._moved(**tensors)
        for name, tensor in tensors.items():
            if tensor.dtype not in SUMMED_DTYPES:
                raise ValueError(f"{name} has dtype {tensor.dtype}; sums take {', '.join(map(str, SUMMED_DTYPES))}")

    def _ranked(self, name: str, ranked: torch.Tensor, *, shape: torch.Size) -> None:
        """The tensor has a first dimension more than `shape`: the ranks."""
        wanted = (self.place.num_ranks, *shape)
        if tuple(ranked.shape) != wanted:
            raise ValueError(f"{name} has the shape {tuple(ranked.shape)}; it must be {wanted}")

    def _rank(self, name: str, rank: int) -> None:
        if not 0 <= rank < self.place.num_ranks:
            raise ValueError(f"{name} is rank {rank}; it must be 0 … {self.place.num_ranks - 1}")

    def _peer(self, name: str, rank: int) -> None:
        self._rank(name, rank)
        if rank == self.place.rank:
            raise ValueError(f"{name} is rank {rank} itself; it must be another one")

    def _rows(self, name: str, tensor: torch.Tensor, *, rows: Sequence[int]) -> None:
        if len(rows) != self.place.num_ranks or min(rows) < 0:
            raise ValueError(
                f"the rows of {name} are {list(rows)}; there must be {self.place.num_ranks} counts, none negative"
            )
        if tensor.dim() == 0 or tensor.shape[0] != sum(rows):
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)}; its rows must be {list(rows)}: {sum(rows)}")
