"""Small programs on numpy arrays: how the tests call the native kernels."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.kernels.step_buffers import StepCount

Array = NDArray[Any]
Floats = NDArray[np.float32]

NUMPY_SOURCES = {np.dtype(np.float32): api.Source.F32, np.dtype(np.float16): api.Source.F16}


def aligned(num_bytes: int) -> NDArray[np.uint8]:
    """Zeroed bytes that start on 64."""
    room = np.zeros(num_bytes + 64, dtype=np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + num_bytes]


def address(array: Array | None) -> int | None:
    """Where an array lies; it must be contiguous. NULL for None."""
    if array is None:
        return None
    assert array.flags.c_contiguous
    return array.ctypes.data


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """A packed weight and the bytes that it lies in."""

    kind: api.Format
    num_outputs: int
    num_inputs: int
    tiles: NDArray[np.uint8]

    def operand(self) -> api.Weight:
        return api.Weight(self.kind, self.num_outputs, self.num_inputs, 0, address(self.tiles))


@dataclass(frozen=True, slots=True)
class PanelBuffer:
    """Room for panels."""

    kind: api.PanelKind
    num_inputs: int
    room: NDArray[np.uint8]

    def operand(self) -> api.Panels:
        return api.Panels(self.kind, self.num_inputs, address(self.room))


NO_PANELS = api.Panels(0, 0, None)


@dataclass(slots=True, kw_only=True)
class Batch:
    """A step in numpy, with the fields of StepBuffers; the header is filled in from the others."""

    token_ids: Sequence[int] = ()
    positions: Sequence[int] = ()
    cache_places: Sequence[int] = ()
    query_starts: Sequence[int] = (0,)
    context_lengths: Sequence[int] = ()
    slots: Sequence[int] = ()
    block_tables: Sequence[Sequence[int]] = ((0,),)
    sampled_rows: Sequence[int] = ()
    num_tokens: int | None = None
    num_sampled: int | None = None
    counts: dict[StepCount, int] = field(default_factory=dict)

    def header(self) -> NDArray[np.int32]:
        header = np.zeros(len(StepCount), dtype=np.int32)
        header[StepCount.TOKENS] = len(self.token_ids) if self.num_tokens is None else self.num_tokens
        header[StepCount.SEQUENCES] = len(self.context_lengths)
        header[StepCount.SAMPLED] = len(self.sampled_rows) if self.num_sampled is None else self.num_sampled
        for count, value in self.counts.items():
            header[count] = value
        return header

    def arrays(self) -> list[Array]:
        wide = np.int64
        return [
            self.header(),
            np.array(self.token_ids, dtype=wide),
            np.array(self.positions, dtype=wide),
            np.array(self.cache_places, dtype=wide),
            np.array(self.query_starts, dtype=np.int32),
            np.array(self.context_lengths, dtype=np.int32),
            np.array(self.slots, dtype=wide),
            np.array(self.block_tables, dtype=wide),
            np.array(self.sampled_rows, dtype=wide),
        ]


class Machine:
    """A library and a pool, and ways to pack and run."""

    def __init__(self, library: NativeLibrary, *, max_threads: int) -> None:
        self.library = library
        self.max_threads = max_threads
        self.pool = library.checked_pointer(library.sl_pool_create(max_threads))

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_: object) -> None:
        self.library.sl_pool_destroy(self.pool)

    def pack(self, kind: api.Format, rows: Array, *, source: api.Source | None = None) -> PackedMatrix:
        """Rows [num_outputs, num_inputs] of a float type; of another source as bytes [num_outputs, row bytes]."""
        source = NUMPY_SOURCES[rows.dtype] if source is None else source
        num_inputs = rows.shape[1]
        if source >= api.Source.Q4_0:
            num_inputs = rows.shape[1] * 256 // self.library.source_bytes(source, 1, 256)
        tiles = aligned(self.library.weight_bytes(kind, len(rows), num_inputs))
        self.pack_into(tiles, kind, rows, source=source, num_inputs=num_inputs)
        return PackedMatrix(kind, len(rows), num_inputs, tiles)

    def pack_into(
        self,
        tiles: NDArray[np.uint8],
        kind: api.Format,
        rows: Array,
        *,
        source: api.Source = api.Source.F32,
        num_inputs: int,
        first_tile: int = 0,
        tile_step: int = 1,
    ) -> None:
        """Rows to a range of tiles."""
        rows = np.ascontiguousarray(rows)
        packing = api.Packing(
            kind,
            source,
            len(rows),
            num_inputs,
            first_tile,
            tile_step,
            address(rows),
            rows.nbytes,
            address(tiles),
            tiles.nbytes,
        )
        self.library.checked(self.library.sl_pack(ctypes.byref(packing)))

    def pack_gated(self, kind: api.Format, gate: Floats, up: Floats) -> PackedMatrix:
        """Two matrices [size, num_inputs] whose tiles alternate."""
        size, num_inputs = gate.shape
        num_outputs = 32 * -(-size // 16)
        tiles = aligned(self.library.weight_bytes(kind, num_outputs, num_inputs))
        self.pack_into(tiles, kind, gate, num_inputs=num_inputs, first_tile=0, tile_step=2)
        self.pack_into(tiles, kind, up, num_inputs=num_inputs, first_tile=1, tile_step=2)
        return PackedMatrix(kind, num_outputs, num_inputs, tiles)

    def unpack(
        self, matrix: PackedMatrix, *, first_tile: int = 0, tile_step: int = 1, num_rows: int | None = None
    ) -> Floats:
        """Packed weights as float32 [num_outputs, num_inputs]."""
        count = matrix.num_outputs if num_rows is None else num_rows
        rows = np.empty((count, matrix.num_inputs), dtype=np.float32)
        packing = api.Packing(
            matrix.kind,
            0,
            count,
            matrix.num_inputs,
            first_tile,
            tile_step,
            None,
            0,
            address(matrix.tiles),
            matrix.tiles.nbytes,
        )
        self.library.checked(self.library.sl_unpack(ctypes.byref(packing), address(rows)))
        return rows

    def panels(self, kind: api.PanelKind, max_rows: int, num_inputs: int) -> PanelBuffer:
        return PanelBuffer(kind, num_inputs, aligned(self.library.panel_bytes(kind, max_rows, num_inputs)))

    def run(
        self,
        ops: Sequence[api.Op],
        batch: Batch,
        *,
        isa: int | None = None,
        num_threads: int = 1,
        max_tokens: int = 1024,
        max_seqs: int = 64,
    ) -> None:
        """Makes a program, runs it once, and lets it go.

        Raises:
            NativeError: it was refused.
        """
        arrays = batch.arrays()
        limits = api.Limits(max_tokens, max_seqs, len(batch.block_tables[0]), max_seqs)
        chosen = self.library.sl_isa_best() if isa is None else isa
        array = (api.Op * len(ops))(*ops)
        program = self.library.checked_pointer(
            self.library.sl_program_create(array, len(ops), ctypes.byref(limits), chosen, self.max_threads)
        )
        try:
            step = api.Step(*(address(array) for array in arrays))
            status = self.library.sl_program_run(program, self.pool, ctypes.byref(step), num_threads, None)
            self.library.checked(status)
        finally:
            self.library.sl_program_destroy(program)


def op(kind: api.OpKind, operands: ctypes.Structure, *, rows: StepCount = StepCount.TOKENS) -> api.Op:
    """An operation of its operands."""
    name = next(name for name, member in api.Operands._fields_ if isinstance(operands, member))
    return api.Op(kind, rows, api.Operands(**{name: operands}))


def panel_kind(kind: api.Format) -> api.PanelKind:
    """What a weight's format reads."""
    return api.PanelKind.PAIRS if kind is api.Format.BF16 else api.PanelKind.INT8


def rounded_to_bf16(values: Floats) -> Floats:
    """To nearest, ties to even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return (((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) << 16).astype(np.uint32).view(np.float32)


def bf16_bits(values: Floats) -> NDArray[np.uint16]:
    """The upper halves of values that are rounded already."""
    return (np.ascontiguousarray(values).view(np.uint32) >> 16).astype(np.uint16)


def quantised_inputs(kind: api.Format, x: Floats) -> NDArray[np.float64]:
    """The inputs that a linear layer of this format computes with, in float64: its own rounding of x [rows, inputs]."""
    if kind is api.Format.BF16:
        return rounded_to_bf16(x).astype(np.float64)
    rows, inputs = x.shape
    groups = np.pad(x, ((0, 0), (0, -inputs % 32))).reshape(rows, -1, 32)
    largest = np.abs(groups).max(axis=-1, keepdims=True)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    quants = np.rint(groups * inverse)
    scales = (largest / np.float32(127)).astype(np.float64)
    exact: NDArray[np.float64] = (quants * scales).reshape(rows, -1)[:, :inputs]
    return exact


def families(machine: Machine, kind: api.Format | api.KvFormat) -> list[list[int]]:
    """The instruction sets of this machine, those together that give this format of weights or cache the same bits."""
    available = machine.library.available_isas()
    has_bfloat16 = kind in (api.Format.BF16, api.KvFormat.BF16)
    apart = [name for name in available if name == "amx" and has_bfloat16]
    together = [number for name, number in available.items() if name not in apart]
    return [together, *([available[name]] for name in apart)]
