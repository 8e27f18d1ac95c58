"""Which kernels run on which device, and in which dtype where none was asked for."""

from types import MappingProxyType

import torch

from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.reference_kernels import ReferenceKernels

_DTYPES = MappingProxyType(
    {
        "float32": torch.float32,
        "float64": torch.float64,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
    }
)


def choose_kernels(device: torch.device) -> Kernels:
    """The fastest kernels there are for a device: so far the reference everywhere.

    Raises:
        ValueError: torch cannot compute on the device here.
    """
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {str(device)!r} cannot be used by torch {torch.__version__} here ({error}); take --device cpu"
        ) from error
    return ReferenceKernels()


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype that `name` means on a device. "auto" is float32 on CPUs, where the reference is slower in anything
    narrower, and bfloat16 elsewhere.

    Raises:
        ValueError: no such dtype.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _DTYPES:
        raise ValueError(f"dtype is {name!r}; it must be one of auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]
