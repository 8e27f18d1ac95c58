"""From a step plan to the tensors that kernels read. Mirrors the block table of every slot."""

import dataclasses
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from shardline_workers.kernels.step_buffers import StepBuffers, StepCount
from shardline_workers.ranks.block_tables import BlockTables
from shardline_workers.scheduling.step_plan import SlotChunk, SlotPlan

Header = NDArray[np.int32]  # [len(StepCount)], the host's view of StepBuffers.header


class InputTensors:
    """The step's buffers on the device, and their twins on the host where the device is another place.

    Plans bring only new blocks, so every plan has to come here, in order.
    """

    def __init__(
        self,
        *,
        max_tokens: int,
        max_seqs: int,
        max_sampled: int,
        max_blocks: int,
        block_size: int,
        device: torch.device,
    ) -> None:
        self._block_size = block_size

        def allocate(place: torch.device) -> StepBuffers:
            return StepBuffers.allocate(
                max_tokens=max_tokens,
                max_seqs=max_seqs,
                max_sampled=max_sampled,
                max_blocks=max_blocks,
                device=place,
            )

        self._host = allocate(torch.device("cpu"))
        self.step = self._host if device.type == "cpu" else allocate(device)
        self.header: Header = self._host.header.numpy()
        self._token_ids: NDArray[np.int64] = self._host.token_ids.numpy()
        self._positions: NDArray[np.int64] = self._host.positions.numpy()
        self._cache_places: NDArray[np.int64] = self._host.cache_places.numpy()
        self._query_starts: NDArray[np.int32] = self._host.query_starts.numpy()
        self._context_lengths: NDArray[np.int32] = self._host.context_lengths.numpy()
        self._slots: NDArray[np.int64] = self._host.slots.numpy()
        self._tables = BlockTables(self._host.block_tables.numpy())
        self._block_tables = self._tables.rows
        self._sampled_rows: NDArray[np.int64] = self._host.sampled_rows.numpy()
        self._counting = np.arange(max_seqs + 1)

    def write(self, plan: SlotPlan) -> None:
        """Writes the plan into the host's buffers: all but the sampler's entries of the header."""
        chunks = plan.chunks
        self._tables.extend(chunks)
        if all(len(chunk.token_ids) == 1 and chunk.samples for chunk in chunks):
            num_tokens = num_sampled = self._write_decodes(chunks)
        else:
            num_tokens = self._write_tokens(chunks)
            num_sampled = self._write_sampled(chunks)
        header = self.header
        header[:] = 0
        header[StepCount.TOKENS] = num_tokens
        header[StepCount.SEQUENCES] = len(chunks)
        header[StepCount.SAMPLED] = num_sampled

    def state_checksum(self, num_mirrored: int) -> int:
        """Of the leading slots' tables; see `BlockTables.checksum`."""
        return self._tables.checksum(num_mirrored)

    def upload(self) -> None:
        """Copies the host's buffers to the device, where that is another place."""
        if self.step is not self._host:
            for field in dataclasses.fields(StepBuffers):
                getattr(self.step, field.name).copy_(getattr(self._host, field.name), non_blocking=True)

    def _write_tokens(self, chunks: tuple[SlotChunk, ...]) -> int:
        """Everything but tables and sampling, in a few array operations for the whole batch; returns the tokens."""
        count = len(chunks)
        lengths = np.array([len(chunk.token_ids) for chunk in chunks], np.int64)
        starts = np.array([chunk.start for chunk in chunks], np.int64)
        slots = np.array([chunk.slot for chunk in chunks], np.int64)
        np.cumsum(lengths, out=self._query_starts[1 : count + 1])
        total = int(self._query_starts[count])
        # Token t of the batch is the (t - query_starts[s])th of its sequence's chunk.
        positions = np.repeat(starts - self._query_starts[:count], lengths) + np.arange(total)
        blocks, offsets = np.divmod(positions, self._block_size)
        self._token_ids[:total] = list(chain.from_iterable(chunk.token_ids for chunk in chunks))
        self._positions[:total] = positions
        self._cache_places[:total] = self._block_tables[np.repeat(slots, lengths), blocks] * self._block_size + offsets
        self._context_lengths[:count] = starts + lengths
        self._slots[:count] = slots
        return total

    def _write_sampled(self, chunks: tuple[SlotChunk, ...]) -> int:
        sampled: list[int] = []
        for chunk, begin in zip(chunks, self._query_starts[: len(chunks)].tolist(), strict=True):
            first = begin + chunk.first_scored
            sampled.extend(range(first, first + len(chunk.given_ids)))
            if chunk.samples:
                sampled.append(begin + len(chunk.token_ids) - 1)
        self._sampled_rows[: len(sampled)] = sampled
        return len(sampled)

    def _write_decodes(self, chunks: tuple[SlotChunk, ...]) -> int:
        """The same where each chunk is one token that samples: nearly every step, so it is made short."""
        token_ids, positions, places = self._token_ids, self._positions, self._cache_places
        contexts, slots, size = self._context_lengths, self._slots, self._block_size
        for row, chunk in enumerate(chunks):
            position, slot = chunk.start, chunk.slot
            token_ids[row] = chunk.token_ids[0]
            positions[row] = position
            places[row] = self._block_tables[slot, position // size] * size + position % size
            contexts[row] = position + 1
            slots[row] = slot
        count = len(chunks)
        self._query_starts[: count + 1] = self._counting[: count + 1]
        self._sampled_rows[:count] = self._counting[:count]
        return count
