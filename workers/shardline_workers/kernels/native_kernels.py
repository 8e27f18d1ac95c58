"""Native code for CPUs behind the kernel interface: a step is recorded once, and replayed in one call."""

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Self

import torch

from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.kernels import NumericFormats
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.kernels.native_program import NativePool, NativeProgram
from shardline_workers.kernels.native_recorder import NativeRecorder
from shardline_workers.kernels.native_weights import WeightPacker, aligned_bytes, panel_kind
from shardline_workers.kernels.operands import AttentionShape, KvCache, LinearInput, MatrixSource, PackedLinear
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.packed_store import PackedStore

LAYOUT_VERSION = 2  # of packed weights; a new one makes old files on the disk useless
NUMERICS_VERSION = 2  # of everything that decides bits: a new one gets a new numerics id
BLOCK_SIZES = (64, 32)
_KV_FORMATS = MappingProxyType({torch.bfloat16: api.KvFormat.BF16, torch.int8: api.KvFormat.INT8})
_HEAD_DIM_STEP, _MAX_HEAD_DIM = 16, 576


def unsupported(shape: AttentionShape) -> str | None:
    """Why these heads cannot be computed by native code, or None where they can."""
    if shape.head_dim % _HEAD_DIM_STEP or shape.head_dim > _MAX_HEAD_DIM:
        return (
            f"heads of {shape.head_dim} dimensions; native kernels take multiples of {_HEAD_DIM_STEP} up to"
            f" {_MAX_HEAD_DIM}"
        )
    return None


class NativeKernels:
    """Implements `Kernels`. Weights in their file's own format, activations float32, KV cache bfloat16 or int8."""

    def __init__(
        self,
        library: NativeLibrary,
        *,
        num_threads: int,
        store: PackedStore | None = None,
        instruction_set: str | None = None,
        kv_dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        """Starts the threads.

        Args:
            library: the native code.
            num_threads: at most for a step.
            store: where packed weights are kept; None: they are packed at each start.
            instruction_set: a name of `NativeLibrary.available_isas`; None takes the fastest.
            kv_dtype: what keys and values are kept in: torch.bfloat16, or torch.int8 with scales.
        """
        self._kv_format = _KV_FORMATS[kv_dtype]
        self._kv_dtype = kv_dtype
        self._library = library
        self._isa_name = instruction_set or library.best_isa()
        self._isa = library.available_isas()[self._isa_name]
        self._packer = WeightPacker(library, store, num_threads=num_threads)
        self._pool = NativePool(library, num_threads)

    @property
    def name(self) -> str:
        """See `Kernels.name`."""
        return "native"

    @property
    def formats(self) -> NumericFormats:
        """See `Kernels.formats`."""
        return NumericFormats(
            weights="file", activations=torch.float32, queries=torch.bfloat16, kv_cache=self._kv_dtype
        )

    @property
    def numerics(self) -> dict[str, str]:
        """See `Kernels.numerics`. Instruction sets give the same bits, but for AMX with bfloat16 weights or cache."""
        kv_dtype = str(self._kv_dtype).removeprefix("torch.")
        told = {"kernels": f"native-{NUMERICS_VERSION}", "dtype": "file", "kv_dtype": kv_dtype, "device": "cpu"}
        has_bfloat16 = self._packer.has_bfloat16 or self._kv_dtype is torch.bfloat16
        if self._isa_name == "amx" and has_bfloat16:
            told["bfloat16_products"] = "amx"
        return told

    @property
    def is_batch_invariant(self) -> bool:
        """See `Kernels.is_batch_invariant`: sums have one order, whatever the batch."""
        return True

    @property
    def details(self) -> dict[str, str]:
        """See `Kernels.details`."""
        return {"instruction_set": self._isa_name}

    @property
    def block_sizes(self) -> tuple[int, ...] | None:
        """See `Kernels.block_sizes`."""
        return BLOCK_SIZES

    def pack_linear(self, parts: Sequence[MatrixSource]) -> PackedLinear:
        """See `Kernels.pack_linear`."""
        return self._packer.pack(parts)

    def pack_apart(self, groups: Sequence[Sequence[MatrixSource]]) -> PackedLinear:
        """See `Kernels.pack_apart`."""
        return self._packer.pack_apart(groups)

    def pack_gated(self, gate: MatrixSource, up: MatrixSource) -> PackedLinear:
        """See `Kernels.pack_gated`."""
        return self._packer.pack_gated(gate, up)

    def finish_packing(self) -> None:
        """See `Kernels.finish_packing`."""
        self._packer.finish()

    def allocate_linear_input(self, readers: Sequence[PackedLinear], *, max_rows: int) -> LinearInput:
        """See `Kernels.allocate_linear_input`."""
        num_inputs = readers[0].num_inputs
        kinds = {panel_kind(reader) for reader in readers}
        num_bytes = max(self._library.panel_bytes(kind, max_rows, num_inputs) for kind in kinds)
        return LinearInput(num_inputs, torch.from_numpy(aligned_bytes(num_bytes)))

    def kv_block_bytes(self, shape: AttentionShape, *, block_size: int) -> int:
        """See `Kernels.kv_block_bytes`."""
        block = api.Cache(
            num_blocks=1,
            block_size=block_size,
            num_kv_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            format=self._kv_format,
        )
        return self._library.kv_cache_bytes(block)

    def allocate_kv_cache(self, shape: AttentionShape, *, num_blocks: int, block_size: int) -> KvCache:
        """See `Kernels.allocate_kv_cache`; memory that no token has touched yet costs nothing."""
        num_bytes = num_blocks * self.kv_block_bytes(shape, block_size=block_size)
        blocks = torch.from_numpy(aligned_bytes(num_bytes))
        return KvCache(num_blocks, block_size, (blocks,), (self._kv_format,))

    def record(self, calls: Callable[[Operations], None]) -> NativeProgram:
        """See `Kernels.record`."""
        recorder = NativeRecorder(self._library)
        calls(recorder)
        return NativeProgram(self._library, self._pool, recorder.recording(), isa=self._isa)

    def close(self) -> None:
        """See `Kernels.close`."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
