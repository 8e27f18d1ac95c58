"""A group of one rank: whatever is exchanged is there already."""

from collections.abc import Sequence

import torch

from shardline_workers.collectives.errors import CommunicatorError
from shardline_workers.collectives.tensor_checks import CallChecks
from shardline_workers.communicator import GroupPlace


class OneRankCommunicator:
    """Refuses what any other communicator refuses, so that what works alone is not wrong in a group."""

    sums_in_rank_order = True
    native_ranks = None
    waited_s = 0.0

    def __init__(self, device: torch.device) -> None:
        self.place = GroupPlace(rank=0, num_ranks=1)
        self.device = device
        self._checks = CallChecks(self.place, device)
        self._is_closed = False

    def all_reduce_sum(self, values: torch.Tensor) -> None:
        """Leaves them."""
        self._check_open()
        self._checks.all_reduce(values)

    def all_gather(self, values: torch.Tensor, gathered: torch.Tensor) -> None:
        """Copies."""
        self._check_open()
        self._checks.all_gather(values, gathered)
        gathered[0].copy_(values)

    def reduce_scatter_sum(self, values: torch.Tensor, reduced: torch.Tensor) -> None:
        """Copies."""
        self._check_open()
        self._checks.reduce_scatter(values, reduced)
        reduced.copy_(values[0])

    def broadcast(self, values: torch.Tensor, source: int) -> None:
        """Leaves them."""
        self._check_open()
        self._checks.broadcast(values, source)

    def all_to_all(
        self,
        values: torch.Tensor,
        received: torch.Tensor,
        *,
        send_rows: Sequence[int],
        receive_rows: Sequence[int],
    ) -> None:
        """Copies."""
        self._check_open()
        self._checks.all_to_all(values, received, send_rows=send_rows, receive_rows=receive_rows)
        received.copy_(values)

    def send(self, values: torch.Tensor, destination: int) -> None:
        """Raises ValueError: there is nobody."""
        self._check_open()
        self._checks.message(values, destination=destination)

    def recv(self, values: torch.Tensor, source: int) -> None:
        """Raises ValueError: there is nobody."""
        self._check_open()
        self._checks.message(values, source=source)

    def barrier(self) -> None:
        """Returns."""
        self._check_open()

    def close(self) -> None:
        """Later calls are refused."""
        self._is_closed = True

    def _check_open(self) -> None:
        if self._is_closed:
            raise CommunicatorError("the communicator was closed")
