"""Ranks anywhere exchange tensors by torch.distributed: gloo for CPU tensors, NCCL for CUDA ones.

Each group has a backend of its own; torch's global default group is neither used nor made.

gloo sums in an order of its own, so here it only moves numbers: an all-reduce gathers all ranks' vectors and adds
them up in rank order, which sends num_ranks times the bytes and holds them meanwhile. Its groups are for several
hosts, for tests, and where there is no compiler; on one host shared memory is faster. NCCL sums itself, in the order
of its ring or tree, which is fixed for a machine, a number of ranks and a size. What fails on a GPU is found by
NCCL's watchdog, since calls return before the work is done: with asynchronous error handling at 1 it ends the
process, which fails the group.
"""

import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Protocol, cast

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore, Store

from shardline_workers.collectives.errors import CommunicatorError, RankLateError, RankLostError
from shardline_workers.collectives.tensor_checks import CallChecks
from shardline_workers.communicator import GroupLimits, GroupPlace

# 1: the watchdog aborts the group's communicators and ends the process. Ray sets another value for its workers.
_NCCL_ERROR_HANDLING = ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
_TAG = 0  # of messages between two ranks, which keep their order


class _Work(Protocol):
    def wait(self) -> bool: ...


class _Backend(Protocol):
    """What both of torch's backends offer; its type stubs leave these methods out."""

    def allreduce(self, tensors: list[torch.Tensor]) -> _Work: ...
    def _allgather_base(self, gathered: torch.Tensor, values: torch.Tensor) -> _Work: ...
    def _reduce_scatter_base(self, reduced: torch.Tensor, values: torch.Tensor) -> _Work: ...
    def broadcast(self, tensor: torch.Tensor, root: int) -> _Work: ...
    def alltoall_base(
        self, received: torch.Tensor, values: torch.Tensor, receive_rows: list[int], send_rows: list[int]
    ) -> _Work: ...
    def send(self, tensors: list[torch.Tensor], destination: int, tag: int) -> _Work: ...
    def recv(self, tensors: list[torch.Tensor], source: int, tag: int) -> _Work: ...
    def barrier(self) -> _Work: ...
    def abort(self) -> None: ...


class TorchCommunicator:
    """One rank of a group on devices of one kind."""

    native_ranks = None

    def __init__(
        self,
        store: Store,
        group_name: str,
        *,
        place: GroupPlace,
        device: torch.device,
        limits: GroupLimits,
    ) -> None:
        """Joins, and waits for all other ranks.

        Args:
            store: where ranks find each other.
            group_name: the same for all ranks, another one for each group in this store.
            place: which rank this is.
            device: a CPU or this rank's own CUDA device.
            limits: how long to wait for others.

        Raises:
            CommunicatorError: ranks did not come, or there is no backend for the device.
        """
        self.place, self.device = place, device
        self._checks = CallChecks(place, device)
        self._moves_only = device.type == "cpu"
        self._failure: CommunicatorError | None = None
        self._sent: dict[int, tuple[_Work, torch.Tensor]] = {}  # by destination: the last message, and its bytes
        self._waited_s = 0.0
        prefixed = PrefixStore(group_name, store)
        self._guarded(lambda: _wait_for_all(prefixed, place, limits))
        self._backend: _Backend = self._guarded(lambda: _backend(prefixed, place, device, limits))
        self.barrier()

    @property
    def sums_in_rank_order(self) -> bool:
        """True on CPUs."""
        return self._moves_only

    @property
    def waited_s(self) -> float:
        """See Communicator."""
        return self._waited_s

    def all_reduce_sum(self, values: torch.Tensor) -> None:
        """See Communicator."""
        self._checks.all_reduce(values)
        if not self._moves_only:
            return self._wait(lambda: self._backend.allreduce([values]))
        gathered = values.new_empty((self.place.num_ranks, *values.shape))
        self.all_gather(values, gathered)
        return _sum_in_rank_order(gathered, values)

    def all_gather(self, values: torch.Tensor, gathered: torch.Tensor) -> None:
        """See Communicator."""
        self._checks.all_gather(values, gathered)
        self._wait(lambda: self._backend._allgather_base(_bits(gathered), _bits(values)))

    def reduce_scatter_sum(self, values: torch.Tensor, reduced: torch.Tensor) -> None:
        """See Communicator."""
        self._checks.reduce_scatter(values, reduced)
        if not self._moves_only:
            return self._wait(lambda: self._backend._reduce_scatter_base(reduced, values))
        received, one_each = torch.empty_like(values), [1] * self.place.num_ranks
        self.all_to_all(values, received, send_rows=one_each, receive_rows=one_each)
        return _sum_in_rank_order(received, reduced)

    def broadcast(self, values: torch.Tensor, source: int) -> None:
        """See Communicator."""
        self._checks.broadcast(values, source)
        self._wait(lambda: self._backend.broadcast(_bits(values), source))

    def all_to_all(
        self,
        values: torch.Tensor,
        received: torch.Tensor,
        *,
        send_rows: Sequence[int],
        receive_rows: Sequence[int],
    ) -> None:
        """See Communicator."""
        self._checks.all_to_all(values, received, send_rows=send_rows, receive_rows=receive_rows)
        row_bytes = values.itemsize * values.shape[1:].numel()
        sent, taken = ([count * row_bytes for count in rows] for rows in (send_rows, receive_rows))
        self._wait(lambda: self._backend.alltoall_base(_bits(received), _bits(values), taken, sent))

    def send(self, values: torch.Tensor, destination: int) -> None:
        """See Communicator. It waits for the message before, if that is still on its way to the same rank."""
        self._checks.message(values, destination=destination)
        self._wait_for_peer(lambda: self._post(values, destination))

    def recv(self, values: torch.Tensor, source: int) -> None:
        """See Communicator."""
        self._checks.message(values, source=source)
        self._wait_for_peer(lambda: self._backend.recv([_bits(values)], source, _TAG).wait())

    def barrier(self) -> None:
        """See Communicator. On a GPU, when this rank's stream has come there."""
        self.all_reduce_sum(torch.zeros(1, device=self.device))

    def close(self) -> None:
        """See Communicator."""
        if not isinstance(self._failure, _ClosedError):
            self._backend.abort()
            self._sent.clear()
            del self._backend  # gloo's connections fall with it, not before
            self._failure = _ClosedError("the communicator was closed")

    def _post(self, values: torch.Tensor, destination: int) -> None:
        if not self._moves_only:
            self._backend.send([_bits(values)], destination, _TAG).wait()  # the stream's own order is enough
            return
        # gloo sends when the other rank receives: until then the bytes are kept here, and the caller goes on.
        if (before := self._sent.pop(destination, None)) is not None:
            before[0].wait()
        message = _bits(values).clone()
        self._sent[destination] = self._backend.send([message], destination, _TAG), message

    def _wait_for_peer(self, call: Callable[[], object]) -> None:
        began_s = time.perf_counter()
        self._guarded(call)
        self._waited_s += time.perf_counter() - began_s

    def _wait(self, begin: Callable[[], _Work]) -> None:
        self._guarded(lambda: begin().wait())

    def _guarded(self, call: Callable[[], Any]) -> Any:
        if self._failure is not None:
            raise self._failure
        try:
            return call()
        except RuntimeError as error:  # all that torch.distributed raises is one
            self._failure = _failure_of(error)
            raise self._failure from error


class _ClosedError(CommunicatorError):
    """This rank closed it itself."""


def _wait_for_all(store: Store, place: GroupPlace, limits: GroupLimits) -> None:
    # Before the backends connect, for which they have no other limit than that of every call.
    keys = [f"rank {rank} is there" for rank in range(place.num_ranks)]
    store.set(keys[place.rank], "")
    store.wait(keys, timedelta(seconds=limits.join_s))


def _backend(store: Store, place: GroupPlace, device: torch.device, limits: GroupLimits) -> _Backend:
    if device.type == "cpu":
        limit = timedelta(seconds=limits.wait_s)
        return cast("_Backend", distributed.ProcessGroupGloo(store, place.rank, place.num_ranks, limit))
    if device.type == "cuda" and distributed.is_nccl_available():
        return _nccl_backend(store, place, limits)
    raise CommunicatorError(
        f"there is no way here to exchange tensors on {device}: torch has no NCCL, or the device is unknown"
    )


def _nccl_backend(store: Store, place: GroupPlace, limits: GroupLimits) -> _Backend:
    name, value = _NCCL_ERROR_HANDLING
    os.environ[name] = value  # read when a backend is made, from nowhere else
    options = distributed.ProcessGroupNCCL.Options()
    options._timeout = timedelta(seconds=limits.wait_s)
    return cast("_Backend", distributed.ProcessGroupNCCL(store, place.rank, place.num_ranks, options))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as a row of bytes: backends know few dtypes, and gloo rounds none that it only moves."""
    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)  # one number may have any stride


def _sum_in_rank_order(ranked: torch.Tensor, out: torch.Tensor) -> None:
    wide = torch.float32 if ranked.dtype == torch.bfloat16 else ranked.dtype
    total = ranked[0].to(wide, copy=True)
    for row in ranked[1:]:
        total += row
    out.copy_(total)


def _failure_of(error: RuntimeError) -> CommunicatorError:
    text = str(error).splitlines()[0]
    kind = RankLateError if "timed out" in text.lower() or "timeout" in text.lower() else RankLostError
    return kind(f"the group is broken: {text}")
