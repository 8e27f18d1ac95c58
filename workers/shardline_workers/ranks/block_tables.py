"""The blocks of each slot's sequence, as plans bring them."""

from collections.abc import Iterable
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from shardline_workers.scheduling.step_plan import SlotChunk


class BlockTables:
    """Writes a table for each slot. Rows keep what an earlier sequence left behind what is new."""

    def __init__(self, rows: NDArray[np.int64]) -> None:
        """Takes the rows [max_seqs, max_blocks], all zeros."""
        self.rows = rows
        self._widths = np.zeros(len(rows), np.int64)  # columns of each row that were ever written

    def extend(self, chunks: Iterable[SlotChunk]) -> None:
        """Writes the new blocks of a plan's chunks."""
        for chunk in chunks:
            if chunk.new_block_ids:
                first = chunk.first_new_block
                end = first + len(chunk.new_block_ids)
                self.rows[chunk.slot, first:end] = chunk.new_block_ids
                self._widths[chunk.slot] = max(self._widths[chunk.slot], end)

    def checksum(self, num_mirrored: int) -> int:
        """CRC-32 of the leading slots: of those that only plans of the scheduler fill."""
        width = int(self._widths[:num_mirrored].max())
        return crc32(self.rows[:num_mirrored, :width].tobytes(), width)
