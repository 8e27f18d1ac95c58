"""Chooses the next tokens: knows each slot's parameters, tells the kernels which rows need what, reads the results.

The noise of a choice is keyed by (seed, sequence, position), so the choice depends on logits and parameters alone: not
on the batch, the chunks, or on how often the request was preempted or handed over.
"""

import torch
from torch import Tensor

from shardline_workers.engine import TokenLogprobs
from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.noise import noise_key
from shardline_workers.kernels.sampling_buffers import SamplingBuffers
from shardline_workers.kernels.step_buffers import StepBuffers, StepCount
from shardline_workers.ranks.input_tensors import Header
from shardline_workers.scheduling.step_plan import SampledToken, ScheduledChunk, SlotStart, StepPlan

_PARAMETERS = ("temperatures", "top_ks", "top_ps", "min_ps", "noise_keys", "drawn_rows", "logprob_rows")
_UNUSABLE = "the model's logits for this request are NaN or infinite: it cannot be continued"


class Sampler:
    """One for each rank that samples. `write` → `choose` → `results`, once a step."""

    def __init__(self, kernels: Kernels, *, max_seqs: int, max_logprobs: int, device: torch.device) -> None:
        self._kernels = kernels
        self._slots: list[SlotStart | None] = [None] * max_seqs

        def allocate(place: torch.device) -> SamplingBuffers:
            return SamplingBuffers.allocate(max_seqs=max_seqs, max_logprobs=max_logprobs, device=place)

        self._host = allocate(torch.device("cpu"))
        self._buffers = self._host if device.type == "cpu" else allocate(device)
        self._rows: list[SlotStart] = []  # of the step under way
        self._num_drawn = 0
        self._logprob_rows: list[int] = []

    def write(self, plan: StepPlan, header: Header) -> None:
        """Takes over new slots, and writes the parameters of the rows that the plan samples."""
        for start in plan.starts:
            self._slots[start.slot] = start
        chunks = [chunk for chunk in plan.chunks if chunk.samples]
        self._rows = [self._slot(chunk) for chunk in chunks]
        self._write_drawn(chunks, header)
        self._logprob_rows = [row for row, slot in enumerate(self._rows) if slot.sampling.num_logprobs is not None]
        _fill(self._host.logprob_rows, self._logprob_rows)
        header[StepCount.LOGPROBS] = len(self._logprob_rows)

    def upload(self) -> None:
        """Copies parameters to the device, where that is another place than the host."""
        if self._buffers is not self._host:
            for name in _PARAMETERS:
                getattr(self._buffers, name).copy_(getattr(self._host, name), non_blocking=True)

    def choose(self, logits: Tensor, step: StepBuffers) -> None:
        """Chooses a token for every sampled row of logits [max_seqs, vocab]."""
        self._kernels.choose_greedy(self._buffers, logits, step=step)
        if self._num_drawn:
            self._kernels.choose_drawn(self._buffers, logits, step=step)
        if self._logprob_rows:
            self._kernels.logprobs(self._buffers, logits, step=step)

    def results(self) -> list[SampledToken]:
        """What was chosen, in the order of the plan's sampling chunks. Waits for the device."""
        num_rows = len(self._rows)
        usable = self._buffers.usable[:num_rows].tolist()
        token_ids = self._buffers.chosen_ids[:num_rows].tolist()
        row_to_logprobs = self._read_logprobs()
        return [
            SampledToken(token_id=token_ids[row], logprobs=row_to_logprobs.get(row))
            if usable[row]
            else SampledToken(token_id=0, error=_UNUSABLE)
            for row in range(num_rows)
        ]

    def _slot(self, chunk: ScheduledChunk) -> SlotStart:
        slot = self._slots[chunk.slot]
        assert slot is not None, f"slot {chunk.slot} is planned before it was started"
        return slot

    def _write_drawn(self, chunks: list[ScheduledChunk], header: Header) -> None:
        cut_rows: list[int] = []
        free_rows: list[int] = []
        for row, (chunk, slot) in enumerate(zip(chunks, self._rows, strict=True)):
            sampling = slot.sampling
            if sampling.temperature == 0:
                continue
            (cut_rows if sampling.top_k > 0 or sampling.top_p < 1 else free_rows).append(row)
            self._host.temperatures[row] = sampling.temperature
            self._host.top_ks[row] = sampling.top_k
            self._host.top_ps[row] = sampling.top_p
            self._host.min_ps[row] = sampling.min_p
            position = chunk.start + len(chunk.token_ids)
            self._host.noise_keys[row] = noise_key(seed=sampling.seed, sequence=slot.sequence, position=position)
        _fill(self._host.drawn_rows, cut_rows + free_rows)
        self._num_drawn = len(cut_rows) + len(free_rows)
        header[StepCount.DRAWN] = self._num_drawn
        header[StepCount.CUT] = len(cut_rows)

    def _read_logprobs(self) -> dict[int, TokenLogprobs]:
        count = len(self._logprob_rows)
        if count == 0:
            return {}
        chosen = self._buffers.chosen_logprobs[:count].tolist()
        top_ids = self._buffers.top_ids[:count].tolist()
        top = self._buffers.top_logprobs[:count].tolist()
        return {
            row: TokenLogprobs(chosen[number], *self._likeliest(row, top_ids[number], top[number]))
            for number, row in enumerate(self._logprob_rows)
        }

    def _likeliest(self, row: int, ids: list[int], values: list[float]) -> tuple[tuple[int, ...], tuple[float, ...]]:
        wanted = self._rows[row].sampling.num_logprobs or 0
        return tuple(ids[:wanted]), tuple(values[:wanted])


def _fill(buffer: Tensor, values: list[int]) -> None:
    buffer[: len(values)] = torch.tensor(values, dtype=buffer.dtype)
