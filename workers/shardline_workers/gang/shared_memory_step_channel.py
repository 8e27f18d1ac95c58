"""A step channel between processes of one host: a ring in shared memory, by native code (kernels/native/ring_api.h)."""

import ctypes
import time
from ctypes import c_void_p
from dataclasses import dataclass

from shardline_workers.collectives.errors import CommunicatorError
from shardline_workers.collectives.shared_segment import SharedSegment, sweep_segments
from shardline_workers.gang.step_channel import (
    ChannelLimits,
    PeerLateError,
    PeerLostError,
    StepChannelError,
    check_frame,
)
from shardline_workers.kernels.native_api import Status
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.kernels.native_ring_api import WRITER, RingOptions, RingStatus

# A whole step of decodes lies in one slot; a prefill of thousands of tokens takes a few.
_SLOT_BYTES = 16 * 1024
_NUM_SLOTS = 32
_SLICE_S = 1.0  # a native wait ends so often, that Python may handle signals
_ERRORS: dict[int, type[StepChannelError]] = {RingStatus.LOST: PeerLostError, RingStatus.LATE: PeerLateError}


@dataclass(frozen=True, slots=True, kw_only=True)
class RingShape:
    """How large a ring is and how its ends wait. Equal on all ends, but for the spin. Checked by the native code."""

    num_readers: int  # 1 … 7
    num_slots: int = _NUM_SLOTS  # a power of two: pieces of frames that the writer may be ahead
    slot_bytes: int = _SLOT_BYTES  # of a piece: a multiple of 64
    spin_s: float = 0.0  # before sleeping: 0 where the ends have no core each


class SharedMemoryStepSender:
    """Implements `StepSender`."""

    def __init__(self, library: NativeLibrary, name: str, *, shape: RingShape, limits: ChannelLimits) -> None:
        """Makes or finds the ring, and waits for all readers.

        Args:
            library: the native kernels.
            name: the same for all ends and never used before on this host; letters, digits, '.', '_', '-'.
            shape: of the ring.
            limits: how long to wait for readers.

        Raises:
            StepChannelError: readers did not come, do not agree, or there is too little shared memory.
        """
        self._end = _RingEnd(library, name, WRITER, shape=shape, limits=limits)

    def send(self, frame: bytes) -> None:
        """See `StepSender.send`."""
        check_frame(frame)
        self._end.write(frame)

    def close(self) -> None:
        """See `StepSender.close`."""
        self._end.leave()


class SharedMemoryStepReceiver:
    """Implements `StepReceiver`."""

    def __init__(
        self, library: NativeLibrary, name: str, reader: int, *, shape: RingShape, limits: ChannelLimits
    ) -> None:
        """Makes or finds the ring, and waits for the writer.

        Args:
            library: the native kernels.
            name: the same for all ends and never used before on this host.
            reader: which reader this is, 0 … num_readers - 1.
            shape: of the ring.
            limits: how long to wait for the writer to come, and for the rest of a frame that has begun.

        Raises:
            StepChannelError: the writer did not come, does not agree, or there is too little shared memory.
        """
        self._end = _RingEnd(library, name, WRITER + 1 + reader, shape=shape, limits=limits)
        self._buffer = ctypes.create_string_buffer(shape.slot_bytes)

    def receive(self, limit_s: float) -> bytes:
        """See `StepReceiver.receive`."""
        end_s = time.monotonic() + limit_s
        while (size := self._read(min(limit_s, _SLICE_S))) is None:
            limit_s = end_s - time.monotonic()
            if limit_s <= 0:
                raise TimeoutError("no frame came within the limit")
        return ctypes.string_at(self._buffer, size)

    def close(self) -> None:
        """See `StepReceiver.close`."""
        self._end.leave()

    def _read(self, limit_s: float) -> int | None:
        size = self._end.read(self._buffer, max(limit_s, 0.0))
        if size is not None and size > len(self._buffer):
            self._buffer = ctypes.create_string_buffer(size)
            size = self._end.read(self._buffer, 0.0)
        return size


class _RingEnd:
    """An `sl_ring`, and its errors as exceptions."""

    def __init__(
        self, library: NativeLibrary, name: str, place: int, *, shape: RingShape, limits: ChannelLimits
    ) -> None:
        self._library = library
        self._ring: c_void_p | None = None
        sweep_segments()
        self._ring = self._joined(name, _native_options(place, shape, limits))

    def write(self, frame: bytes) -> None:
        self._check(self._library.sl_ring_write(self._open(), frame, len(frame)))

    def read(self, buffer: ctypes.Array[ctypes.c_char], limit_s: float) -> int | None:
        """The frame's size, which may be more than the buffer's: nothing was read then. None where there is none."""
        size: int = self._library.sl_ring_read(self._open(), buffer, len(buffer), _nanoseconds(limit_s))
        if size == RingStatus.EMPTY:
            return None
        self._check(min(size, 0))
        return size

    def leave(self) -> None:
        if self._ring is not None:
            self._library.sl_ring_leave(self._ring)
            self._ring = None

    def _joined(self, name: str, options: RingOptions) -> c_void_p:
        size: int = self._library.sl_ring_bytes(options.num_readers, options.num_slots, options.slot_bytes)
        self._check(min(size, 0))
        try:
            segment = SharedSegment(name, size)
        except CommunicatorError as error:
            raise StepChannelError(str(error)) from error
        ring = c_void_p()
        status = self._library.sl_ring_join(segment.file, ctypes.byref(options), ctypes.byref(ring))
        if status == Status.OK or status in _ERRORS:
            # With all ends there nobody needs the name; without, nobody shall find a ring that cannot be made. Where
            # only this end was refused, the others may still need it.
            segment.unlink()
        segment.close()
        self._check(status)
        return ring

    def _open(self) -> c_void_p:
        if self._ring is None:
            raise StepChannelError("the channel was closed")
        return self._ring

    def _check(self, status: int) -> None:
        if status != Status.OK:
            text = (self._library.sl_last_error() or b"").decode(errors="replace")
            raise _ERRORS.get(status, StepChannelError)(text)


def _native_options(place: int, shape: RingShape, limits: ChannelLimits) -> RingOptions:
    return RingOptions(
        place=place,
        num_readers=shape.num_readers,
        num_slots=shape.num_slots,
        slot_bytes=shape.slot_bytes,
        spin_ns=_nanoseconds(shape.spin_s),
        join_ns=_nanoseconds(limits.join_s),
        wait_ns=_nanoseconds(limits.wait_s),
    )


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
