"""Chooses the next tokens: knows each slot's parameters, tells the kernels which rows need what, reads the results.

The noise of a choice is keyed by (seed, sequence, position), so the choice depends on logits and parameters alone: not
on the batch, the chunks, or on how often the request was preempted or handed over.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shardline_workers.engine import TokenLogprobs
from shardline_workers.kernels.noise import position_keys
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.sampling_buffers import MAX_CANDIDATES, SamplingBuffers
from shardline_workers.kernels.step_buffers import StepBuffers, StepCount
from shardline_workers.models.sharded_logits import ShardedLogits
from shardline_workers.ranks.input_tensors import Header
from shardline_workers.ranks.logit_adjustments import MAX_NAMED_IDS, LogitAdjustments
from shardline_workers.ranks.slot_parameters import SlotParameters
from shardline_workers.scheduling.step_plan import SampledToken, SlotChunk, SlotPlan

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
    "given_rows",
    "given_ids",
    "num_candidates",
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


class _Row(NamedTuple):
    """One row of logits; a tuple, since every step makes one for each of its rows."""

    chunk: SlotChunk
    given_id: int | None  # None: the token is to be chosen


def _rows_of(plan: SlotPlan) -> list[_Row]:
    rows: list[_Row] = []
    for chunk in plan.chunks:
        rows.extend(_Row(chunk, token_id) for token_id in chunk.given_ids)
        if chunk.samples:
            rows.append(_Row(chunk, None))
    return rows


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
        self.given_rows = buffers.given_rows.numpy()
        self.given_ids = buffers.given_ids.numpy()
        self.adjusted_slots = buffers.adjusted_slots.numpy()
        self.noise_keys = buffers.noise_keys.numpy().view(np.uint64)
        self.drawn_rows = buffers.drawn_rows.numpy()
        self.logprob_rows = buffers.logprob_rows.numpy()
        self.num_candidates = buffers.num_candidates.numpy()
        self.chosen_ids = buffers.chosen_ids.numpy()
        self.usable = buffers.usable.numpy()


class Sampler:
    """One for each rank that has logits. `write` → `choose` → `results`, once a step.

    Ranks that share a vocabulary get the same plans and so tell each other nothing but logits; one of them chooses.
    """

    def __init__(
        self,
        *,
        max_seqs: int,
        max_sampled: int,
        max_logprobs: int,
        max_model_len: int,
        vocab_size: int,
        num_ranks: int,
        device: torch.device,
    ) -> None:
        """Allocates its buffers.

        Args:
            max_seqs: slots.
            max_sampled: rows of one step.
            max_logprobs: likeliest tokens that a request may want to know.
            max_model_len: tokens of a sequence.
            vocab_size: of the model.
            num_ranks: that share the vocabulary.
            device: where the kernels' buffers are.
        """
        self._slots = SlotParameters(max_seqs)
        self._is_shared = num_ranks > 1

        def allocate(place: torch.device) -> SamplingBuffers:
            return SamplingBuffers.allocate(
                max_seqs=max_seqs,
                max_sampled=max_sampled,
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
        self._num_drawn = self._num_cut = self._num_given = 0
        self._had_given = False
        self._logprob_rows: list[int] = []
        self._num_logprobs: list[int] = []  # one for each of these rows

    def write(self, plan: SlotPlan, header: Header) -> None:
        """Takes over new slots, and writes the parameters of the rows that the plan samples."""
        for start in plan.starts:
            self._slots.enter(start)
            self._adjustments.enter(start)
        rows = _rows_of(plan)
        row_slots = [row.chunk.slot for row in rows]
        has_given = any(row.given_id is not None for row in rows)
        is_same_batch = not plan.starts and not has_given and not self._had_given and row_slots == self._row_slots
        self._row_slots, self._had_given = row_slots, has_given
        self._num_rows = len(rows)
        self._write_drawn(rows, header, is_same_batch=is_same_batch)
        self._write_adjusted(rows, header, is_same_batch=is_same_batch)
        if not is_same_batch:
            self._write_given(rows)
            self._write_logprobs(rows)
            self._write_candidates(rows)
        header[StepCount.GIVEN] = self._num_given
        header[StepCount.LOGPROBS] = len(self._logprob_rows)

    def upload(self) -> None:
        """Copies parameters to the device, where that is another place than the host."""
        if self._buffers is not self._host:
            for name in _PARAMETERS:
                getattr(self._buffers, name).copy_(getattr(self._host, name), non_blocking=True)
            if self._adjusted_rows:
                self._upload_adjustments()

    def choose(self, operations: Operations, sharded: ShardedLogits, step: StepBuffers) -> None:
        """Chooses a token for every sampled row, or helps the rank that does: the calls are the same in every step."""
        if sharded.ranks.place.num_ranks > 1:
            self._gather(operations, sharded, step)
        if sharded.logits is not None:
            self._choose(operations, sharded.logits, step)

    def _gather(self, operations: Operations, sharded: ShardedLogits, step: StepBuffers) -> None:
        rank_logits, buffers = sharded.rank_logits, self._buffers
        operations.adjust_logits(buffers, rank_logits, first_id=sharded.first_id, step=step)
        operations.gather_logits(
            sharded.logits,
            rank_logits,
            sharded.ranks,
            rank_sizes=sharded.rank_sizes,
            sampling=buffers,
            step=step,
        )

    def _choose(self, operations: Operations, logits: Tensor, step: StepBuffers) -> None:
        operations.adjust_logits(self._buffers, logits, step=step)
        operations.choose_greedy(self._buffers, logits, step=step)
        operations.choose_drawn(self._buffers, logits, step=step)
        operations.choose_given(self._buffers, logits, step=step)
        operations.restore_logits(self._buffers, logits, step=step)
        operations.logprobs(self._buffers, logits, step=step)

    def state_checksum(self, num_mirrored: int) -> int:
        """Of the leading slots' parameters; see `SlotParameters.checksum`."""
        return self._slots.checksum(num_mirrored)

    def results(self) -> list[SampledToken]:
        """What was chosen or given, in the order of the plan's rows. Waits for the device."""
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

    def _write_drawn(self, rows: list[_Row], header: Header, *, is_same_batch: bool) -> None:
        if not is_same_batch:
            self._pick_parameters(np.array([row.given_id is None for row in rows], np.bool_))
        header[StepCount.CUT] = self._num_cut
        header[StepCount.DRAWN] = self._num_drawn
        if self._num_drawn:
            ends = (row.chunk.start + len(row.chunk.token_ids) for row in rows)
            positions = np.fromiter(ends, np.uint64, len(rows))
            self._arrays.noise_keys[: len(rows)] = position_keys(self._streams, positions)

    def _write_adjusted(self, rows: list[_Row], header: Header, *, is_same_batch: bool) -> None:
        if not is_same_batch:
            adjusted = [
                number
                for number, row in enumerate(rows)
                if row.given_id is None and self._adjustments.adjusts(row.chunk.slot)
            ]
            self._arrays.adjusted_rows[: len(adjusted)] = adjusted
            self._arrays.adjusted_slots[: len(adjusted)] = [rows[number].chunk.slot for number in adjusted]
            self._adjusted_rows = adjusted
        for number in self._adjusted_rows:
            self._adjustments.advance(rows[number].chunk)
        header[StepCount.ADJUSTED] = len(self._adjusted_rows)

    def _write_given(self, rows: list[_Row]) -> None:
        given = [(number, row.given_id) for number, row in enumerate(rows) if row.given_id is not None]
        self._num_given = len(given)
        for place, (number, token_id) in enumerate(given):
            self._arrays.given_rows[place], self._arrays.given_ids[place] = number, token_id

    def _write_logprobs(self, rows: list[_Row]) -> None:
        slots = self._slots
        wanted = [
            (slots.num_logprobs if row.given_id is None else slots.num_prompt_logprobs)[row.chunk.slot] for row in rows
        ]
        self._logprob_rows = [number for number, count in enumerate(wanted) if count is not None]
        self._num_logprobs = [count for count in wanted if count is not None]
        self._arrays.logprob_rows[: len(self._logprob_rows)] = self._logprob_rows

    def _write_candidates(self, rows: list[_Row]) -> None:
        """How many of its greatest logits each rank tells of a row: enough that the choice is that of all logits."""
        if not self._is_shared:
            return
        slots = np.array(self._row_slots, np.int64)
        is_drawn = self._slots.is_drawn[slots] & np.array([row.given_id is None for row in rows], np.bool_)
        top_ks = self._slots.top_ks[slots]
        few = np.where((top_ks > 0) & (top_ks <= MAX_CANDIDATES), top_ks, 0)
        candidates = self._arrays.num_candidates[: len(rows)]
        candidates[:] = np.where(is_drawn, few, 1)
        candidates[self._logprob_rows] = 0

    def _upload_adjustments(self) -> None:
        """Entries that count, of the slots that have any: the whole table would be much more."""
        there, here = self._buffers.adjustments, self._host.adjustments
        there.lengths.copy_(here.lengths)
        for row in self._adjusted_rows:
            slot = self._row_slots[row]
            length = int(here.lengths[slot])
            for name in ("ids", "biases", "occurrences"):
                getattr(there, name)[slot, :length].copy_(getattr(here, name)[slot, :length])

    def _pick_parameters(self, is_chosen: NDArray[np.bool_]) -> None:
        """Parameters of the rows, and which are to be drawn: the same from step to step while the batch is."""
        slots = np.array(self._row_slots, np.int64)
        is_cut = self._slots.is_cut[slots] & is_chosen
        cut_rows = np.flatnonzero(is_cut)
        free_rows = np.flatnonzero(self._slots.is_drawn[slots] & is_chosen & ~is_cut)
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
