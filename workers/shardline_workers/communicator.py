"""How the ranks of a group exchange tensors, whichever way the bytes take. What every implementation promises:

- **Order.** All ranks make the same collective calls in the same order, from one thread each. `send` and `recv`
  concern two ranks only; between the same two, messages keep their order.
- **Buffers.** All tensors are the caller's, contiguous, on the communicator's device; results are written into them
  and nothing else is. They may be read or written again when the call returns (on a GPU: by later work of its
  stream). Source and result must not overlap, unless they are one argument.
- **Numbers.** Sums take float32, bfloat16 or float64; everything else moves any dtype by its bits. A sum is ((rank 0
  + rank 1) + rank 2) + …, in float32 for bfloat16, which is rounded once, to nearest even: its bits depend on ranks
  and values, never on timing, chunks or implementation. An implementation whose `sums_in_rank_order` is False has an
  order of its own that is the same in every run of one machine.
- **Failure.** No call waits for longer than the group's limit for another rank's next piece. Then, or when a rank
  died or made another call, it raises a CommunicatorError, and so does each later call: the group cannot be mended.
  The contents of result tensors are undefined then.
- **Arguments** that cannot work on this rank alone (dtype, shape, device, rank) raise ValueError before anything is
  exchanged, so that the group is still whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlace:
    """Which rank of how many."""

    rank: int  # 0 … num_ranks - 1
    num_ranks: int

    def __post_init__(self) -> None:
        """Raises ValueError for a rank that its group has not."""
        if not 0 <= self.rank < self.num_ranks:
            raise ValueError(f"rank is {self.rank}; in a group of {self.num_ranks} it must be 0 … {self.num_ranks - 1}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimits:
    """How long ranks wait for each other."""

    join_s: float = 60.0  # for all of them to come: processes start, and import torch
    wait_s: float = 10.0  # for another rank's next piece

    def __post_init__(self) -> None:
        """Raises ValueError for limits that are none."""
        if not (self.join_s > 0 and self.wait_s > 0):
            raise ValueError(f"join_s is {self.join_s} and wait_s {self.wait_s}; both must be positive")


@dataclass(frozen=True, slots=True)
class NativeRanks:
    """A group as native programs know it, which call it themselves. It goes with its communicator."""

    address: int  # of an sl_ranks, see kernels/native/ranks_api.h
    check: Callable[[int], None]  # raises the CommunicatorError that a call's status means


class Communicator(Protocol):
    """One rank's end of a group. See the module for what holds everywhere."""

    @property
    def place(self) -> GroupPlace:
        """Which rank this is."""

    @property
    def device(self) -> torch.device:
        """Where all tensors must lie."""

    @property
    def sums_in_rank_order(self) -> bool:
        """Whether sums have the bits of a plain loop over ranks."""

    @property
    def native_ranks(self) -> NativeRanks | None:
        """For native programs that make the group's calls; None where the host has to.

        Raises:
            CommunicatorError: it was closed.
        """

    @property
    def waited_s(self) -> float:
        """Seconds that this rank has waited so far in `send` and `recv` for the other one; on a GPU its stream does."""

    def all_reduce_sum(self, values: torch.Tensor) -> None:
        """Replaces `values`, of the same shape on all ranks, by the sum over them."""

    def all_gather(self, values: torch.Tensor, gathered: torch.Tensor) -> None:
        """Puts every rank's `values` [*shape] into `gathered` [num_ranks, *shape], in rank order."""

    def reduce_scatter_sum(self, values: torch.Tensor, reduced: torch.Tensor) -> None:
        """Puts the sum over ranks of `values` [num_ranks, *shape] at this rank's index into `reduced` [*shape]."""

    def broadcast(self, values: torch.Tensor, source: int) -> None:
        """Overwrites `values`, of the same shape and dtype everywhere, by those of rank `source`."""

    def all_to_all(
        self,
        values: torch.Tensor,
        received: torch.Tensor,
        *,
        send_rows: Sequence[int],
        receive_rows: Sequence[int],
    ) -> None:
        """Gives each rank its own rows, any number of them, also none.

        Args:
            values: [sum(send_rows), *shape], those for rank 0 first.
            received: [sum(receive_rows), *shape], those from rank 0 first.
            send_rows: for each rank; rank a's at b must be rank b's receive_rows at a.
            receive_rows: from each rank.
        """

    def send(self, values: torch.Tensor, destination: int) -> None:
        """Sends to another rank, which must `recv` the same shape and dtype. It may return before, or wait for that."""

    def recv(self, values: torch.Tensor, source: int) -> None:
        """Overwrites `values` by what the other rank sends next."""

    def barrier(self) -> None:
        """Returns when all ranks have called it."""

    def close(self) -> None:
        """Leaves the group and frees what it held; ranks that still wait for this one fail. May be called again."""
