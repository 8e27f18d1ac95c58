"""From a step plan to the tensors that kernels read. Mirrors the block table of every slot."""

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray

from shardline_workers.kernels.step_buffers import StepBuffers, StepCount
from shardline_workers.scheduling.step_plan import ScheduledChunk, StepPlan

Header = NDArray[np.int32]  # [len(StepCount)], the host's view of StepBuffers.header


class InputTensors:
    """The step's buffers on the device, and their twins on the host where the device is another place.

    Plans bring only new blocks, so every plan has to come here, in order.
    """

    def __init__(
        self, *, max_tokens: int, max_seqs: int, max_blocks: int, block_size: int, device: torch.device
    ) -> None:
        self._block_size = block_size

        def allocate(place: torch.device) -> StepBuffers:
            return StepBuffers.allocate(max_tokens=max_tokens, max_seqs=max_seqs, max_blocks=max_blocks, device=place)

        self._host = allocate(torch.device("cpu"))
        self.step = self._host if device.type == "cpu" else allocate(device)
        self.header: Header = self._host.header.numpy()
        self._token_ids: NDArray[np.int64] = self._host.token_ids.numpy()
        self._positions: NDArray[np.int64] = self._host.positions.numpy()
        self._cache_places: NDArray[np.int64] = self._host.cache_places.numpy()
        self._query_starts: NDArray[np.int32] = self._host.query_starts.numpy()
        self._context_lengths: NDArray[np.int32] = self._host.context_lengths.numpy()
        self._slots: NDArray[np.int64] = self._host.slots.numpy()
        self._block_tables: NDArray[np.int64] = self._host.block_tables.numpy()
        self._sampled_rows: NDArray[np.int64] = self._host.sampled_rows.numpy()

    def write(self, plan: StepPlan) -> None:
        """Writes the plan into the host's buffers: all but the sampler's entries of the header."""
        end = 0
        num_sampled = 0
        for number, chunk in enumerate(plan.chunks):
            begin, end = end, end + len(chunk.token_ids)
            self._write_chunk(chunk, number, begin=begin)
            if chunk.samples:
                self._sampled_rows[num_sampled] = end - 1
                num_sampled += 1
        self.header[:] = 0
        self.header[StepCount.TOKENS] = end
        self.header[StepCount.SEQUENCES] = len(plan.chunks)
        self.header[StepCount.SAMPLED] = num_sampled

    def upload(self) -> None:
        """Copies the host's buffers to the device, where that is another place."""
        if self.step is not self._host:
            for field in dataclasses.fields(StepBuffers):
                getattr(self.step, field.name).copy_(getattr(self._host, field.name), non_blocking=True)

    def _write_chunk(self, chunk: ScheduledChunk, number: int, *, begin: int) -> None:
        table = self._block_tables[chunk.slot]
        table[chunk.first_new_block : chunk.first_new_block + len(chunk.new_block_ids)] = chunk.new_block_ids
        end = begin + len(chunk.token_ids)
        positions = np.arange(chunk.start, chunk.start + len(chunk.token_ids))
        blocks, offsets = np.divmod(positions, self._block_size)
        self._token_ids[begin:end] = chunk.token_ids
        self._positions[begin:end] = positions
        self._cache_places[begin:end] = table[blocks] * self._block_size + offsets
        self._query_starts[number + 1] = end
        self._context_lengths[number] = positions[-1] + 1
        self._slots[number] = chunk.slot
