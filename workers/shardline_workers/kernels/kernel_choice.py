"""Which kernels run: what was asked for, what the device needs, and what this machine has."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from shardline_workers.kernels import native_kernels
from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.native_build import cache_folder
from shardline_workers.kernels.native_kernels import NativeKernels
from shardline_workers.kernels.native_library import NativeUnavailableError, load_native_library
from shardline_workers.kernels.operands import AttentionShape
from shardline_workers.kernels.packed_store import PackedStore
from shardline_workers.kernels.reference_kernels import ReferenceKernels

KERNEL_NAMES = ("auto", "native", "reference")
KV_CACHE_DTYPES = ("auto", "bfloat16", "int8")
_DTYPES = MappingProxyType(
    {
        "float32": torch.float32,
        "float64": torch.float64,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelWish:
    """What was asked for, and for which model."""

    kernels: str  # auto, native, reference
    device: torch.device
    dtype: str  # auto, or a dtype's name
    kv_cache_dtype: str  # auto, bfloat16, int8
    block_size: int | None  # tokens
    attention: AttentionShape
    weights_digest: str
    slice_name: str  # of the rank: which part of the weights it packs
    num_threads: int


def choose_kernels(wish: KernelWish, *, environment: Mapping[str, str], report: Callable[[str], None]) -> Kernels:
    """The fastest kernels there are for what is wished.

    Args:
        wish: what was asked for.
        environment: says where compiler and cache are.
        report: gets a line for each thing that a user should know.

    Raises:
        ValueError: what was asked for cannot be had here; the text says why, and what could.
    """
    if wish.kernels not in KERNEL_NAMES:
        raise ValueError(f"kernels is {wish.kernels!r}; it must be one of {', '.join(KERNEL_NAMES)}")
    if wish.kv_cache_dtype not in KV_CACHE_DTYPES:
        raise ValueError(f"kv_cache_dtype is {wish.kv_cache_dtype!r}; it must be one of {', '.join(KV_CACHE_DTYPES)}")
    refuse_unusable_device(wish.device)
    obstacle = _obstacle(wish)
    if wish.kernels == "native" and obstacle is not None:
        raise ValueError(f"kernels is 'native', but {obstacle}; take --kernels auto")
    if obstacle is not None and wish.kernels == "auto":
        report(f"the reference kernels compute: native ones do not, since {obstacle}")
    if wish.kernels == "reference" or obstacle is not None:
        return _reference(wish)
    try:
        return _native(wish, environment, report)
    except NativeUnavailableError as error:
        if wish.kernels == "native":
            raise ValueError(str(error)) from error
        report(f"WARNING: the reference kernels take over: {error}")
        return _reference(wish)


def choose_device(name: str) -> torch.device:
    """The device that `name` means.

    Raises:
        ValueError: torch knows no such device; the text names what could stand there.
    """
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"device is {name!r}, which torch {torch.__version__} does not know; take cpu, cuda, or cuda:N for one GPU"
            f" of several"
        ) from error


def refuse_unusable_device(device: torch.device) -> None:
    """Tries the device.

    Raises:
        ValueError: torch cannot use it here; the text says why.
    """
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {str(device)!r} cannot be used by torch {torch.__version__} here ({error}); take --device cpu"
        ) from error


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype that `name` means to the reference. "auto" is float32 on CPUs, where it is slower in anything narrower,
    and bfloat16 elsewhere.

    Raises:
        ValueError: no such dtype.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _DTYPES:
        raise ValueError(f"dtype is {name!r}; it must be one of auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _obstacle(wish: KernelWish) -> str | None:
    """Why native kernels cannot do what is wished, whatever this machine has; None where they can."""
    if wish.device.type != "cpu":
        return f"they run on CPUs, and the device is {str(wish.device)!r}"
    if wish.dtype != "auto":
        choose_dtype(wish.dtype, wish.device)  # an unknown one is told as such
        return f"they keep weights in the file's own format, and dtype is {wish.dtype!r}"
    if wish.block_size is not None and wish.block_size not in native_kernels.BLOCK_SIZES:
        sizes = " or ".join(map(str, sorted(native_kernels.BLOCK_SIZES)))
        return f"they take blocks of {sizes} tokens, and block_size is {wish.block_size}"
    reason = native_kernels.unsupported(wish.attention)
    return None if reason is None else f"this model has {reason}"


def _reference(wish: KernelWish) -> Kernels:
    return ReferenceKernels(
        dtype=choose_dtype(wish.dtype, wish.device), device=wish.device, kv_dtype=_named_kv_dtype(wish)
    )


def _named_kv_dtype(wish: KernelWish) -> torch.dtype | None:
    """What keys and values are to be kept in; None is the kernels' own choice."""
    return {"bfloat16": torch.bfloat16, "int8": torch.int8}.get(wish.kv_cache_dtype)


def _native(wish: KernelWish, environment: Mapping[str, str], report: Callable[[str], None]) -> Kernels:
    library = load_native_library(environment, report)
    wanted = environment.get("SHARDLINE_INSTRUCTION_SET") or None
    available = library.available_isas()
    if wanted is not None and wanted not in available:
        raise ValueError(f"SHARDLINE_INSTRUCTION_SET is {wanted!r}; this machine has {', '.join(available)}")
    return NativeKernels(
        library,
        num_threads=wish.num_threads,
        store=PackedStore(_packed_folder(environment), _packed_key(wish)),
        instruction_set=wanted,
        kv_dtype=_named_kv_dtype(wish) or torch.bfloat16,
    )


def _packed_folder(environment: Mapping[str, str]) -> Path:
    return cache_folder(environment) / "packed"


def _packed_key(wish: KernelWish) -> str:
    """Names the packed weights of one rank's slice of one model."""
    return f"{wish.weights_digest}-{wish.slice_name}-layout{native_kernels.LAYOUT_VERSION}-{platform.machine()}"
