"""Chooses the next tokens: knows each slot's parameters, tells the kernels which rows need what, reads the results.

The noise of a choice is keyed by (seed, sequence, position), so the choice depends on logits and parameters alone: not
on the batch, the chunks, or on how often the request was preempted or handed over.
"""

import numpy as np
import torch
from torch import Tensor

from shardline_workers.engine import TokenLogprobs
from shardline_workers.kernels.noise import noise_stream, position_keys
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.sampling_buffers import SamplingBuffers
from shardline_workers.kernels.step_buffers import StepBuffers, StepCount
from shardline_workers.ranks.input_tensors import Header
from shardline_workers.ranks.logit_adjustments import MAX_NAMED_IDS, LogitAdjustments
from shardline_workers.scheduling.step_plan import SampledToken, ScheduledChunk, SlotStart, StepPlan

_PARAMETERS = (
    "temperatures",
    "top_ks",
    "top_ps",
    "min_ps",
    "noise_keys",
    "drawn_rows",
    "logprob_rows",
    "adjusted_rows",
    "adjusted_slots",
    "repetition_penalties",
    "frequency_penalties",
    "presence_penalties",
)
_PICKED = (
    "temperatures",
    "top_ks",
    "top_ps",
    "min_ps",
    "repetition_penalties",
    "frequency_penalties",
    "presence_penalties",
)
_UNUSABLE = (
    "the model's logits for this request are NaN or infinite, or its bad words and min_tokens forbid every token: it"
    " cannot be continued"
)


class _SlotParameters:
    """Every slot's parameters as arrays, so that a step's rows are filled by picking, not one by one."""

    def __init__(self, max_seqs: int) -> None:
        self.temperatures = np.zeros(max_seqs)
        self.top_ks = np.zeros(max_seqs, np.int64)
        self.top_ps = np.ones(max_seqs)
        self.min_ps = np.zeros(max_seqs)
        self.repetition_penalties = np.ones(max_seqs)
        self.frequency_penalties = np.zeros(max_seqs)
        self.presence_penalties = np.zeros(max_seqs)
        self.streams = np.zeros(max_seqs, np.uint64)  # see noise.noise_stream
        self.is_drawn = np.zeros(max_seqs, np.bool_)
        self.is_cut = np.zeros(max_seqs, np.bool_)
        self.num_logprobs: list[int | None] = [None] * max_seqs

    def enter(self, start: SlotStart) -> None:
        """A sequence enters its slot."""
        slot, sampling = start.slot, start.sampling
        self.temperatures[slot] = sampling.temperature
        self.top_ks[slot] = sampling.top_k
        self.top_ps[slot] = sampling.top_p
        self.min_ps[slot] = sampling.min_p
        self.repetition_penalties[slot] = sampling.repetition_penalty
        self.frequency_penalties[slot] = sampling.frequency_penalty
        self.presence_penalties[slot] = sampling.presence_penalty
        self.streams[slot] = noise_stream(seed=sampling.seed, sequence=start.sequence)
        self.is_drawn[slot] = sampling.temperature > 0
        self.is_cut[slot] = sampling.temperature > 0 and (sampling.top_k > 0 or sampling.top_p < 1)
        self.num_logprobs[slot] = sampling.num_logprobs


class _HostArrays:
    """The sampling buffers of the host, as the arrays that they are."""

    def __init__(self, buffers: SamplingBuffers) -> None:
        self.temperatures = buffers.temperatures.numpy()
        self.top_ks = buffers.top_ks.numpy()
        self.top_ps = buffers.top_ps.numpy()
        self.min_ps = buffers.min_ps.numpy()
        self.repetition_penalties = buffers.repetition_penalties.numpy()
        self.frequency_penalties = buffers.frequency_penalties.numpy()
        self.presence_penalties = buffers.presence_penalties.numpy()
        self.adjusted_rows = buffers.adjusted_rows.numpy()
        self.adjusted_slots = buffers.adjusted_slots.numpy()
        self.noise_keys = buffers.noise_keys.numpy().view(np.uint64)
        self.drawn_rows = buffers.drawn_rows.numpy()
        self.logprob_rows = buffers.logprob_rows.numpy()
        self.chosen_ids = buffers.chosen_ids.numpy()
        self.usable = buffers.usable.numpy()


class Sampler:
    """One for each rank that samples. `write` → `choose` → `results`, once a step."""

    def __init__(
        self, *, max_seqs: int, max_logprobs: int, max_model_len: int, vocab_size: int, device: torch.device
    ) -> None:
        self._slots = _SlotParameters(max_seqs)

        def allocate(place: torch.device) -> SamplingBuffers:
            return SamplingBuffers.allocate(
                max_seqs=max_seqs,
                max_logprobs=max_logprobs,
                max_adjustments=min(vocab_size, max_model_len + MAX_NAMED_IDS),
                device=place,
            )

        self._host = allocate(torch.device("cpu"))
        self._arrays = _HostArrays(self._host)
        self._adjustments = LogitAdjustments(self._host.adjustments, vocab_size=vocab_size)
        self._adjusted_rows: list[int] = []
        self._buffers = self._host if device.type == "cpu" else allocate(device)
        self._num_rows = 0  # of the step under way
        self._row_slots: list[int] = []
        self._streams = np.zeros(0, np.uint64)  # of each row
        self._num_drawn = self._num_cut = 0
        self._logprob_rows: list[int] = []
        self._num_logprobs: list[int] = []  # one for each of these rows

    def write(self, plan: StepPlan, header: Header) -> None:
        """Takes over new slots, and writes the parameters of the rows that the plan samples."""
        for start in plan.starts:
            self._slots.enter(start)
            self._adjustments.enter(start)
        chunks = [chunk for chunk in plan.chunks if chunk.samples]
        row_slots = [chunk.slot for chunk in chunks]
        is_same_batch = not plan.starts and row_slots == self._row_slots
        self._row_slots = row_slots
        self._num_rows = len(chunks)
        self._write_drawn(chunks, header, is_same_batch=is_same_batch)
        self._write_adjusted(chunks, header, is_same_batch=is_same_batch)
        if not is_same_batch:
            wanted = [(row, self._slots.num_logprobs[slot]) for row, slot in enumerate(row_slots)]
            self._logprob_rows = [row for row, number in wanted if number is not None]
            self._num_logprobs = [number for _, number in wanted if number is not None]
            self._arrays.logprob_rows[: len(self._logprob_rows)] = self._logprob_rows
        header[StepCount.LOGPROBS] = len(self._logprob_rows)

    def upload(self) -> None:
        """Copies parameters to the device, where that is another place than the host."""
        if self._buffers is not self._host:
            for name in _PARAMETERS:
                getattr(self._buffers, name).copy_(getattr(self._host, name), non_blocking=True)
            if self._adjusted_rows:
                self._upload_adjustments()

    def choose(self, operations: Operations, logits: Tensor, step: StepBuffers) -> None:
        """Chooses a token for every sampled row of logits [max_seqs, vocab]: the calls are the same in every step."""
        operations.adjust_logits(self._buffers, logits, step=step)
        operations.choose_greedy(self._buffers, logits, step=step)
        operations.choose_drawn(self._buffers, logits, step=step)
        operations.restore_logits(self._buffers, logits, step=step)
        operations.logprobs(self._buffers, logits, step=step)

    def results(self) -> list[SampledToken]:
        """What was chosen, in the order of the plan's sampling chunks. Waits for the device."""
        num_rows = self._num_rows
        self._download()
        token_ids = self._arrays.chosen_ids[:num_rows].tolist()
        usable = self._arrays.usable[:num_rows].tolist()
        if not self._logprob_rows and all(usable):
            return [SampledToken(token_id=token_id) for token_id in token_ids]
        row_to_logprobs = self._read_logprobs()
        return [
            SampledToken(token_id=token_ids[row], logprobs=row_to_logprobs.get(row))
            if usable[row]
            else SampledToken(token_id=0, error=_UNUSABLE)
            for row in range(num_rows)
        ]

    def _download(self) -> None:
        """Copies what was chosen to the host, where that is another place than the device."""
        if self._buffers is not self._host:
            for name in ("chosen_ids", "usable"):
                getattr(self._host, name).copy_(getattr(self._buffers, name))

    def _write_drawn(self, chunks: list[ScheduledChunk], header: Header, *, is_same_batch: bool) -> None:
        if not is_same_batch:
            self._pick_parameters()
        header[StepCount.CUT] = self._num_cut
        header[StepCount.DRAWN] = self._num_drawn
        if self._num_drawn:
            positions = np.array([chunk.start + len(chunk.token_ids) for chunk in chunks], np.uint64)
            self._arrays.noise_keys[: len(chunks)] = position_keys(self._streams, positions)

    def _write_adjusted(self, chunks: list[ScheduledChunk], header: Header, *, is_same_batch: bool) -> None:
        if not is_same_batch:
            rows = [row for row, slot in enumerate(self._row_slots) if self._adjustments.adjusts(slot)]
            self._arrays.adjusted_rows[: len(rows)] = rows
            self._arrays.adjusted_slots[: len(rows)] = [self._row_slots[row] for row in rows]
            self._adjusted_rows = rows
        for row in self._adjusted_rows:
            self._adjustments.advance(chunks[row])
        header[StepCount.ADJUSTED] = len(self._adjusted_rows)

    def _upload_adjustments(self) -> None:
        """Entries that count, of the slots that have any: the whole table would be much more."""
        there, here = self._buffers.adjustments, self._host.adjustments
        there.lengths.copy_(here.lengths)
        for row in self._adjusted_rows:
            slot = self._row_slots[row]
            length = int(here.lengths[slot])
            for name in ("ids", "biases", "occurrences"):
                getattr(there, name)[slot, :length].copy_(getattr(here, name)[slot, :length])

    def _pick_parameters(self) -> None:
        """Parameters of the rows, and which are to be drawn: the same from step to step while the batch is."""
        slots = np.array(self._row_slots, np.int64)
        is_cut = self._slots.is_cut[slots]
        cut_rows = np.flatnonzero(is_cut)
        free_rows = np.flatnonzero(self._slots.is_drawn[slots] & ~is_cut)
        self._num_cut, self._num_drawn = len(cut_rows), len(cut_rows) + len(free_rows)
        self._streams = self._slots.streams[slots]
        arrays = self._arrays
        arrays.drawn_rows[: self._num_drawn] = np.concatenate([cut_rows, free_rows])
        for name in _PICKED:
            getattr(arrays, name)[: len(slots)] = getattr(self._slots, name)[slots]

    def _read_logprobs(self) -> dict[int, TokenLogprobs]:
        count = len(self._logprob_rows)
        if count == 0:
            return {}
        chosen = self._buffers.chosen_logprobs[:count].tolist()
        top_ids = self._buffers.top_ids[:count].tolist()
        top = self._buffers.top_logprobs[:count].tolist()
        return {
            row: TokenLogprobs(chosen[number], tuple(top_ids[number][:wanted]), tuple(top[number][:wanted]))
            for number, (row, wanted) in enumerate(zip(self._logprob_rows, self._num_logprobs, strict=True))
        }
