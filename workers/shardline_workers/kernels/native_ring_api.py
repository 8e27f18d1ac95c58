"""The C interface of native/ring_api.h in ctypes: the same names without the prefix, nothing else.

What the fields mean stands there.
"""

import ctypes
from ctypes import POINTER, c_int32, c_int64, c_void_p
from enum import IntEnum


class RingStatus(IntEnum):
    """enum sl_ring_status."""

    LOST = -32
    LATE = -33
    EMPTY = -34


MAX_READERS = 7  # SL_MAX_READERS
WRITER = 0  # SL_RING_WRITER


class RingOptions(ctypes.Structure):
    """sl_ring_options."""

    _fields_ = (
        ("place", c_int32),
        ("num_readers", c_int32),
        ("num_slots", c_int32),
        ("slot_bytes", c_int32),
        ("spin_ns", c_int64),
        ("join_ns", c_int64),
        ("wait_ns", c_int64),
    )


# Function → result and arguments.
RING_FUNCTIONS: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "sl_ring_bytes": (c_int64, (c_int32, c_int32, c_int32)),
    "sl_ring_join": (c_int32, (c_int32, POINTER(RingOptions), POINTER(c_void_p))),
    "sl_ring_leave": (None, (c_void_p,)),
    "sl_ring_write": (c_int32, (c_void_p, ctypes.c_char_p, c_int64)),
    "sl_ring_read": (c_int64, (c_void_p, c_void_p, c_int64, c_int64)),
}
