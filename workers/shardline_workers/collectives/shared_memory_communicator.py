"""Ranks of one host exchange CPU tensors through shared memory, by native code: see kernels/native/ranks_api.h."""

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_int64, c_void_p
from dataclasses import dataclass

import torch

from shardline_workers.collectives.errors import CommunicatorError, RankLateError, RankLostError, RanksDifferError
from shardline_workers.collectives.shared_segment import SharedSegment, sweep_segments
from shardline_workers.collectives.tensor_checks import CallChecks
from shardline_workers.communicator import GroupLimits, GroupPlace, NativeRanks
from shardline_workers.kernels.native_api import MAX_RANKS, Status
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.kernels.native_ranks_api import Number, RanksOptions, RanksStatus

SPIN_S = 50e-6  # about what a balanced operation takes; longer spins collapse when another process wants the core
SLOT_BYTES = 256 * 1024  # a rank's chunk: 64 tokens of 1,024 float32, and two ranks' chunks fit a second-level cache
_NUMBERS = {
    torch.float32: int(Number.FLOAT32),
    torch.bfloat16: int(Number.BFLOAT16),
    torch.float64: int(Number.FLOAT64),
}
_ERRORS: dict[int, type[CommunicatorError]] = {
    RanksStatus.LOST: RankLostError,
    RanksStatus.LATE: RankLateError,
    RanksStatus.DIFFER: RanksDifferError,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedMemoryOptions:
    """How ranks wait, and in which chunks they exchange. Checked by the native code."""

    slot_bytes: int = SLOT_BYTES  # a multiple of 256, 1,024 … 2^26
    spin_s: float = SPIN_S

    @classmethod
    def for_cores(cls, num_ranks: int, num_cores: int, *, slot_bytes: int = SLOT_BYTES) -> "SharedMemoryOptions":
        """No spinning where a rank waits for one that needs its core to arrive."""
        return cls(slot_bytes=slot_bytes, spin_s=SPIN_S if num_ranks <= num_cores else 0.0)


class SharedMemoryCommunicator:
    """One rank of 2 … 8 on one Linux host."""

    sums_in_rank_order = True
    device = torch.device("cpu")

    def __init__(
        self,
        library: NativeLibrary,
        group_name: str,
        *,
        place: GroupPlace,
        limits: GroupLimits,
        options: SharedMemoryOptions,
    ) -> None:
        """Joins, and waits for all other ranks.

        Args:
            library: the native kernels.
            group_name: the same for all ranks and never used before on this host; letters, digits, '.', '_', '-'.
            place: which rank this is.
            limits: how long to wait for others.
            options: chunks and spinning; slot_bytes must be equal on all ranks.

        Raises:
            CommunicatorError: ranks did not come, do not agree, or there is too little shared memory.
        """
        if not 2 <= place.num_ranks <= MAX_RANKS:
            raise CommunicatorError(
                f"shared memory takes 2 to {MAX_RANKS} ranks, not {place.num_ranks}: exchange by gloo"
            )
        self.place = place
        self._checks = CallChecks(place, self.device)
        self._library = library
        self._ranks: c_void_p | None = None
        self._all_reduce: Callable[..., int] = library.sl_ranks_all_reduce
        sweep_segments()
        self._ranks = self._joined(group_name, limits, options)

    @property
    def native_ranks(self) -> NativeRanks:
        """See Communicator."""
        address = self._open().value
        assert address is not None, "joining gave one"
        return NativeRanks(address, self._check)

    @property
    def waited_s(self) -> float:
        """See Communicator."""
        return float(self._library.sl_ranks_waited_ns(self._open())) * 1e-9

    def all_reduce_sum(self, values: torch.Tensor) -> None:
        """See Communicator."""
        self._checks.all_reduce(values)
        self._check(self._all_reduce(self._open(), values.data_ptr(), values.numel(), _NUMBERS[values.dtype]))

    def all_gather(self, values: torch.Tensor, gathered: torch.Tensor) -> None:
        """See Communicator."""
        self._checks.all_gather(values, gathered)
        status = self._library.sl_ranks_all_gather(self._open(), values.data_ptr(), gathered.data_ptr(), values.nbytes)
        self._check(status)

    def reduce_scatter_sum(self, values: torch.Tensor, reduced: torch.Tensor) -> None:
        """See Communicator."""
        self._checks.reduce_scatter(values, reduced)
        number, count = _NUMBERS[values.dtype], reduced.numel()
        addresses = values.data_ptr(), reduced.data_ptr()
        self._check(self._library.sl_ranks_reduce_scatter(self._open(), *addresses, count, number))

    def broadcast(self, values: torch.Tensor, source: int) -> None:
        """See Communicator."""
        self._checks.broadcast(values, source)
        self._check(self._library.sl_ranks_broadcast(self._open(), values.data_ptr(), values.nbytes, source))

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
        sent, taken = (self._sizes(rows, row_bytes) for rows in (send_rows, receive_rows))
        addresses = values.data_ptr(), received.data_ptr()
        self._check(self._library.sl_ranks_all_to_all(self._open(), addresses[0], sent, addresses[1], taken))

    def send(self, values: torch.Tensor, destination: int) -> None:
        """See Communicator."""
        self._checks.message(values, destination=destination)
        self._check(self._library.sl_ranks_send(self._open(), values.data_ptr(), values.nbytes, destination))

    def recv(self, values: torch.Tensor, source: int) -> None:
        """See Communicator."""
        self._checks.message(values, source=source)
        self._check(self._library.sl_ranks_receive(self._open(), values.data_ptr(), values.nbytes, source))

    def barrier(self) -> None:
        """See Communicator."""
        self._check(self._library.sl_ranks_barrier(self._open()))

    def close(self) -> None:
        """See Communicator."""
        if self._ranks is not None:
            self._library.sl_ranks_leave(self._ranks)
            self._ranks = None

    def _joined(self, group_name: str, limits: GroupLimits, options: SharedMemoryOptions) -> c_void_p:
        native = RanksOptions(
            rank=self.place.rank,
            num_ranks=self.place.num_ranks,
            slot_bytes=options.slot_bytes,
            spin_ns=_nanoseconds(options.spin_s),
            join_ns=_nanoseconds(limits.join_s),
            wait_ns=_nanoseconds(limits.wait_s),
        )
        segment = SharedSegment(group_name, self._shared_bytes(native))
        ranks = c_void_p()
        status = self._library.sl_ranks_join(segment.file, ctypes.byref(native), ctypes.byref(ranks))
        if status == Status.OK or status in _ERRORS:
            # With all ranks there nobody needs the name; without, nobody shall find a group that cannot be made. Where
            # only this rank was refused, the others may still need it.
            segment.unlink()
        segment.close()
        self._check(status)
        return ranks

    def _shared_bytes(self, native: RanksOptions) -> int:
        size: int = self._library.sl_ranks_bytes(native.num_ranks, native.slot_bytes)
        self._check(min(size, 0))
        return size

    def _sizes(self, rows: Sequence[int], row_bytes: int) -> ctypes.Array[c_int64]:
        return (c_int64 * self.place.num_ranks)(*(count * row_bytes for count in rows))

    def _open(self) -> c_void_p:
        if self._ranks is None:
            raise CommunicatorError("the communicator was closed")
        return self._ranks

    def _check(self, status: int) -> None:
        if status != Status.OK:
            text = (self._library.sl_last_error() or b"").decode(errors="replace")
            raise _ERRORS.get(status, CommunicatorError)(text)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
