"""The plain torch implementation: always there, on any device torch knows, and the oracle of every other one.

Its programs make their calls anew at every step, and weights are plain matrices in one dtype.
"""

import time
from collections.abc import Callable, Sequence

import torch

from shardline_workers.kernels import reference_kv_cache
from shardline_workers.kernels.kernels import NumericFormats, RunTimes
from shardline_workers.kernels.operands import AttentionShape, KvCache, LinearInput, MatrixSource, PackedLinear
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.reference_operations import ReferenceOperations


class ReferenceProgram:
    """Implements `StepProgram`."""

    def __init__(self, calls: Callable[[Operations], None]) -> None:
        self._calls = calls
        self._operations = ReferenceOperations()

    @torch.inference_mode()
    def run(self, num_threads: int) -> RunTimes:
        """See `StepProgram.run`; sets the number of torch's threads in this process."""
        if torch.get_num_threads() != num_threads:
            torch.set_num_threads(num_threads)
        started_s = time.perf_counter()
        self._calls(self._operations)
        return RunTimes(time.perf_counter() - started_s)


class ReferenceKernels:
    """Implements `Kernels`."""

    def __init__(self, *, dtype: torch.dtype, device: torch.device, kv_dtype: torch.dtype | None = None) -> None:
        """Nothing is allocated yet.

        Args:
            dtype: of weights and activations.
            device: where they lie.
            kv_dtype: what keys and values are kept in, torch.int8 with scales; None: as activations.
        """
        self._dtype = dtype
        self._kv_dtype = kv_dtype or dtype
        self._device = device

    @property
    def name(self) -> str:
        """See `Kernels.name`."""
        return "reference"

    @property
    def formats(self) -> NumericFormats:
        """See `Kernels.formats`."""
        return NumericFormats(
            weights=str(self._dtype).removeprefix("torch."),
            activations=self._dtype,
            queries=self._dtype,
            kv_cache=self._kv_dtype,
        )

    @property
    def numerics(self) -> dict[str, str]:
        """See `Kernels.numerics`: how torch's products round is its own and the processor's business."""
        return {
            "kernels": self.name,
            "dtype": self.formats.weights,
            "kv_dtype": str(self._kv_dtype).removeprefix("torch."),
            "device": self._device.type,
            "torch": torch.__version__,
            "cpu": torch.backends.cpu.get_cpu_capability(),
        }

    @property
    def is_batch_invariant(self) -> bool:
        """See `Kernels.is_batch_invariant`: matrix products of torch round differently for other numbers of rows."""
        return False

    @property
    def details(self) -> dict[str, str]:
        """See `Kernels.details`."""
        return {}

    @property
    def block_sizes(self) -> tuple[int, ...] | None:
        """See `Kernels.block_sizes`."""
        return None

    def pack_linear(self, parts: Sequence[MatrixSource]) -> PackedLinear:
        """See `Kernels.pack_linear`."""
        matrices = [part.dequantised() for part in parts]
        weight = matrices[0] if len(matrices) == 1 else torch.cat(matrices)
        return PackedLinear(weight.shape[0], weight.shape[1], (weight,))

    def pack_apart(self, groups: Sequence[Sequence[MatrixSource]]) -> PackedLinear:
        """See `Kernels.pack_apart`."""
        return self.pack_linear([part for group in groups for part in group])

    def pack_gated(self, gate: MatrixSource, up: MatrixSource) -> PackedLinear:
        """See `Kernels.pack_gated`."""
        return self.pack_linear((gate, up))

    def finish_packing(self) -> None:
        """See `Kernels.finish_packing`."""

    def allocate_linear_input(self, readers: Sequence[PackedLinear], *, max_rows: int) -> LinearInput:
        """See `Kernels.allocate_linear_input`."""
        num_inputs = readers[0].num_inputs
        return LinearInput(num_inputs, torch.empty((max_rows, num_inputs), dtype=self._dtype, device=self._device))

    def kv_block_bytes(self, shape: AttentionShape, *, block_size: int) -> int:
        """See `Kernels.kv_block_bytes`."""
        return reference_kv_cache.block_bytes(shape, block_size=block_size, dtype=self._kv_dtype)

    def allocate_kv_cache(self, shape: AttentionShape, *, num_blocks: int, block_size: int) -> KvCache:
        """See `Kernels.allocate_kv_cache`."""
        return reference_kv_cache.allocate(
            shape, num_blocks=num_blocks, block_size=block_size, dtype=self._kv_dtype, device=self._device
        )

    def record(self, calls: Callable[[Operations], None]) -> ReferenceProgram:
        """See `Kernels.record`."""
        return ReferenceProgram(calls)

    def close(self) -> None:
        """See `Kernels.close`."""
