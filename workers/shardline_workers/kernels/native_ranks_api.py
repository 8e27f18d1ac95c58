"""The C interface of native/ranks_api.h in ctypes: the same names without the prefix, nothing else.

What the fields mean stands there.
"""

import ctypes
from ctypes import POINTER, c_int32, c_int64, c_void_p
from enum import IntEnum


class RanksStatus(IntEnum):
    """enum sl_ranks_status."""

    LOST = -16
    LATE = -17
    DIFFER = -18


class Number(IntEnum):
    """enum sl_number."""

    FLOAT32 = 0
    BFLOAT16 = 1
    FLOAT64 = 2


class RanksOptions(ctypes.Structure):
    """sl_ranks_options."""

    _fields_ = (
        ("rank", c_int32),
        ("num_ranks", c_int32),
        ("slot_bytes", c_int64),
        ("spin_ns", c_int64),
        ("join_ns", c_int64),
        ("wait_ns", c_int64),
    )


# Function → result and arguments.
RANKS_FUNCTIONS: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "sl_ranks_bytes": (c_int64, (c_int32, c_int64)),
    "sl_ranks_join": (c_int32, (c_int32, POINTER(RanksOptions), POINTER(c_void_p))),
    "sl_ranks_leave": (None, (c_void_p,)),
    "sl_ranks_all_reduce": (c_int32, (c_void_p, c_void_p, c_int64, c_int32)),
    "sl_ranks_reduce_scatter": (c_int32, (c_void_p, c_void_p, c_void_p, c_int64, c_int32)),
    "sl_ranks_all_gather": (c_int32, (c_void_p, c_void_p, c_void_p, c_int64)),
    "sl_ranks_broadcast": (c_int32, (c_void_p, c_void_p, c_int64, c_int32)),
    "sl_ranks_all_to_all": (c_int32, (c_void_p, c_void_p, POINTER(c_int64), c_void_p, POINTER(c_int64))),
    "sl_ranks_barrier": (c_int32, (c_void_p,)),
    "sl_ranks_send": (c_int32, (c_void_p, c_void_p, c_int64, c_int32)),
    "sl_ranks_receive": (c_int32, (c_void_p, c_void_p, c_int64, c_int32)),
    "sl_ranks_waited_ns": (c_int64, (c_void_p,)),
}
