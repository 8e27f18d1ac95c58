"""Packs matrices for the native kernels, straight from the file's own blocks and by all threads at once.

Each format of a file has one packed format that holds it exactly, or with less loss than the int8 of its inputs (see
sl_pack in api.h); floats wider than bfloat16 are rounded to it. Parts of one matrix that differ in format stay apart,
in segments.
"""

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from shardline_workers.files.stored_rows import stored_rows
from shardline_workers.kernels.native_api import Format, Packing, PanelKind, Source
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.kernels.operands import MatrixSource, PackedLinear
from shardline_workers.kernels.packed_store import PackedStore

Fill = Callable[[NDArray[np.uint8]], None]

TILE_ROWS = 16
_PIECE_ROWS = 512  # of one thread's turn: a multiple of a tile
_ALIGNMENT = 64  # bytes

_SOURCES = MappingProxyType(
    {
        "F32": (Source.F32, Format.BF16),
        "F16": (Source.F16, Format.BF16),
        "BF16": (Source.BF16, Format.BF16),
        "Q4_0": (Source.Q4_0, Format.W4),
        "Q4_1": (Source.Q4_1, Format.W4_MIN),
        "Q8_0": (Source.Q8_0, Format.W8),
        "Q5_0": (Source.Q5_0, Format.W8),
        "Q5_1": (Source.Q5_1, Format.W8),
        "Q2_K": (Source.Q2_K, Format.W8),
        "Q3_K": (Source.Q3_K, Format.W8),
        "Q4_K": (Source.Q4_K, Format.W4_MIN),
        "Q5_K": (Source.Q5_K, Format.W8),
        "Q6_K": (Source.Q6_K, Format.W8),
    }
)


@dataclass(frozen=True, slots=True)
class _Rows:
    """A matrix as sl_pack reads it."""

    source: Source
    format: Format  # that holds it exactly, or as near as there is
    num_rows: int
    num_inputs: int
    data: NDArray[np.uint8]  # [num_rows, bytes of a row], in the file: rows of a part may lie apart


@dataclass(frozen=True, slots=True)
class Segment:
    """Outputs of a packed matrix that lie in one piece of memory in one format."""

    format: Format
    num_outputs: int
    tiles: torch.Tensor  # uint8


def panel_kind(weight: PackedLinear) -> PanelKind:
    """In which form the inputs of a packed matrix have to come."""
    return PanelKind.PAIRS if segments(weight)[0].format is Format.BF16 else PanelKind.INT8


def segments(weight: PackedLinear) -> list[Segment]:
    """The pieces of a packed matrix, in the order of its outputs."""
    formats, sizes = weight.layout[0::2], weight.layout[1::2]
    return [
        Segment(Format(number), size, tiles) for number, size, tiles in zip(formats, sizes, weight.tensors, strict=True)
    ]


class WeightPacker:
    """Packs one model's matrices into memory of its own, or finds them packed on the disk."""

    def __init__(self, library: NativeLibrary, store: PackedStore | None, *, num_threads: int) -> None:
        self._library = library
        self._store = store
        self._num_threads = num_threads
        self.has_bfloat16 = False  # whether a matrix that was packed has such weights

    def pack(self, parts: Sequence[MatrixSource]) -> PackedLinear:
        """Matrices with the same inputs, their outputs one after the other."""
        return self.pack_apart([parts])

    def pack_apart(self, groups: Sequence[Sequence[MatrixSource]]) -> PackedLinear:
        """The same, each group in segments of its own."""
        rows = _in_one_family([_as_rows(part) for group in groups for part in group])
        self.has_bfloat16 |= rows[0].format is Format.BF16
        left = iter(rows)
        pieces = [piece for group in groups for piece in _pieces(list(islice(left, len(group))))]
        packed = [self._segment(piece) for piece in pieces]
        return _packed_linear(packed, num_inputs=rows[0].num_inputs)

    def pack_gated(self, gate: MatrixSource, up: MatrixSource) -> PackedLinear:
        """Two matrices of one shape, their tiles by turns."""
        rows = _in_one_format(_in_one_family([_as_rows(gate), _as_rows(up)]))
        num_tiles = 2 * -(-rows[0].num_rows // TILE_ROWS)
        form, num_inputs = rows[0].format, rows[0].num_inputs
        self.has_bfloat16 |= form is Format.BF16
        num_outputs = num_tiles * TILE_ROWS

        def fill(packed: NDArray[np.uint8]) -> None:
            self._pack_into(packed, [(part, number) for number, part in enumerate(rows)], tile_step=2)

        tiles = self._tiles(self._library.weight_bytes(form, num_outputs, num_inputs), fill)
        return _packed_linear([Segment(form, num_outputs, tiles)], num_inputs=num_inputs)

    def finish(self) -> None:
        """Every matrix was packed: what was made is kept on the disk for the next start."""
        if self._store is not None:
            self._store.save()

    def _segment(self, parts: Sequence[_Rows]) -> Segment:
        num_outputs = sum(part.num_rows for part in parts)
        form, num_inputs = parts[0].format, parts[0].num_inputs
        starts = [sum(part.num_rows for part in parts[:number]) // TILE_ROWS for number in range(len(parts))]

        def fill(packed: NDArray[np.uint8]) -> None:
            self._pack_into(packed, list(zip(parts, starts, strict=True)), tile_step=1)

        tiles = self._tiles(self._library.weight_bytes(form, num_outputs, num_inputs), fill)
        return Segment(form, num_outputs, tiles)

    def _tiles(self, num_bytes: int, fill: Fill) -> torch.Tensor:
        packed = self._store.take(num_bytes) if self._store is not None else None
        if packed is None:
            packed = aligned_bytes(num_bytes)
            fill(packed)
            if self._store is not None:
                self._store.put(packed)
        return torch.from_numpy(packed)

    def _pack_into(self, packed: NDArray[np.uint8], parts: Sequence[tuple[_Rows, int]], *, tile_step: int) -> None:
        pieces = [
            (part, start, first_tile + start // TILE_ROWS * tile_step)
            for part, first_tile in parts
            for start in range(0, part.num_rows, _PIECE_ROWS)
        ]
        with ThreadPoolExecutor(self._num_threads) as threads:
            list(threads.map(lambda piece: self._pack_piece(packed, *piece, tile_step=tile_step), pieces))

    def _pack_piece(
        self, packed: NDArray[np.uint8], part: _Rows, start: int, first_tile: int, *, tile_step: int
    ) -> None:
        rows = np.ascontiguousarray(part.data[start : start + _PIECE_ROWS])  # copies only where they lie apart
        num_rows = len(rows)
        packing = Packing(
            format=part.format,
            source=part.source,
            num_rows=num_rows,
            num_inputs=part.num_inputs,
            first_tile=first_tile,
            tile_step=tile_step,
            rows=rows.ctypes.data,
            rows_bytes=rows.nbytes,
            packed=packed.ctypes.data,
            packed_bytes=len(packed),
        )
        self._library.checked(self._library.sl_pack(ctypes.byref(packing)))


def _as_rows(part: MatrixSource) -> _Rows:
    stored = part.stored
    num_rows, num_inputs = stored.shape
    if stored.kind in _SOURCES:
        source, form = _SOURCES[stored.kind]
        return _Rows(source, form, num_rows, num_inputs, stored_rows(stored))
    # A type without blocks of its own here goes by way of float32, rounded to bfloat16.
    floats = part.dequantised().to(torch.float32).contiguous().numpy()
    return _Rows(Source.F32, Format.BF16, num_rows, num_inputs, floats.view(np.uint8))


def _in_one_family(rows: list[_Rows]) -> list[_Rows]:
    """Quantised and bfloat16 parts do not read the same inputs: where both are there, all become bfloat16."""
    if len({part.format is Format.BF16 for part in rows}) == 1:
        return rows
    return [_with_format(part, Format.BF16) for part in rows]


def _in_one_format(rows: list[_Rows]) -> list[_Rows]:
    if len({part.format for part in rows}) == 1:
        return rows
    return [_with_format(part, Format.BF16) for part in rows]


def _with_format(part: _Rows, form: Format) -> _Rows:
    return _Rows(part.source, form, part.num_rows, part.num_inputs, part.data)


def _pieces(parts: list[_Rows]) -> list[list[_Rows]]:
    """What can lie in one segment. Tiles hold 16 outputs of one part: one that ends within a tile ends its segment."""
    runs = [list(run) for _, run in groupby(parts, key=lambda part: part.format)]
    return [piece for run in runs for piece in _split_at_tiles(run)]


def _split_at_tiles(run: list[_Rows]) -> list[list[_Rows]]:
    pieces: list[list[_Rows]] = [[]]
    for part in run:
        pieces[-1].append(part)
        if part.num_rows % TILE_ROWS:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _packed_linear(packed: Sequence[Segment], *, num_inputs: int) -> PackedLinear:
    return PackedLinear(
        num_outputs=sum(segment.num_outputs for segment in packed),
        num_inputs=num_inputs,
        tensors=tuple(segment.tiles for segment in packed),
        layout=tuple(number for segment in packed for number in (int(segment.format), segment.num_outputs)),
    )


def aligned_bytes(num_bytes: int) -> NDArray[np.uint8]:
    """Memory for the kernels, not touched yet, on the boundary that they want."""
    memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + num_bytes]
