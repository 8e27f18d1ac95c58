"""Biases, penalties and forbidden tokens of every implementation against the formulas in plain Python floats."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.native_kernels import NativeKernels
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.reference_kernels import ReferenceKernels
from shardline_workers.kernels.sampling_buffers import NEVER_SEEN, SamplingBuffers
from shardline_workers.kernels.step_buffers import StepBuffers, StepCount

MAX_SEQS = 6
VOCAB = 90
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Row:
    """What one row's request wants: token id → bias and occurrences."""

    entries: dict[int, tuple[float, int]] = field(default_factory=dict)
    repetition: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0

    def formula(self, logit: float, token_id: int) -> float:
        """OpenAI's presence and frequency penalties, and the repetition penalty of CTRL, after a bias."""
        bias, occurrences = self.entries[token_id]
        logit += bias
        if occurrences >= 0:
            logit = logit / self.repetition if logit > 0 else logit * self.repetition
        if occurrences > 0:
            logit -= self.frequency * occurrences + self.presence
        return logit


ROWS = (
    Row({5: (2.5, NEVER_SEEN), 89: (-100.0, NEVER_SEEN), 0: (-math.inf, NEVER_SEEN)}),
    Row({token_id: (0.0, token_id % 4) for token_id in range(0, VOCAB, 2)}, repetition=1.3),
    Row({1: (0.0, 3), 2: (0.0, 0), 3: (1.5, 1)}, frequency=0.4, presence=-1.1),
    Row({1: (7.0, 12), 2: (-math.inf, 2), 3: (0.25, 0)}, repetition=0.7, frequency=2.0, presence=2.0),
)


@pytest.fixture(params=["reference in float64", "reference in float32", "native"])
def kernels(request: pytest.FixtureRequest, native_library: NativeLibrary) -> Iterator[Kernels]:
    if request.param == "native":
        with NativeKernels(native_library, num_threads=1) as native:
            yield native
    else:
        dtype = torch.float64 if "64" in request.param else torch.float32
        yield ReferenceKernels(dtype=dtype, device=CPU)


def buffers_of(rows: tuple[Row, ...]) -> tuple[SamplingBuffers, StepBuffers]:
    """Row r of the logits is rows[r]; its slot is another number."""
    sampling = SamplingBuffers.allocate(
        max_seqs=MAX_SEQS, max_sampled=MAX_SEQS, max_logprobs=2, max_adjustments=VOCAB, device=CPU
    )
    step = StepBuffers.allocate(max_tokens=8, max_seqs=MAX_SEQS, max_sampled=MAX_SEQS, max_blocks=1, device=CPU)
    step.header[StepCount.SAMPLED] = len(rows)
    step.header[StepCount.ADJUSTED] = len(rows)
    for number, row in enumerate(rows):
        slot = MAX_SEQS - 1 - number
        place = len(rows) - 1 - number
        sampling.adjusted_rows[place], sampling.adjusted_slots[place] = number, slot
        sampling.repetition_penalties[number] = row.repetition
        sampling.frequency_penalties[number] = row.frequency
        sampling.presence_penalties[number] = row.presence
        sampling.adjustments.lengths[slot] = len(row.entries)
        for entry, (token_id, (bias, occurrences)) in enumerate(row.entries.items()):
            sampling.adjustments.ids[slot, entry] = token_id
            sampling.adjustments.biases[slot, entry] = bias
            sampling.adjustments.occurrences[slot, entry] = occurrences
    return sampling, step


def random_logits(kernels: Kernels, num_rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(num_rows)
    return (4 * torch.randn(num_rows, VOCAB, generator=generator)).to(kernels.formats.activations)


def run(kernels: Kernels, calls: Callable[[Operations], None]) -> None:
    kernels.record(calls).run(1)


def test_adjusted_logits_are_those_of_the_formula_and_no_other_changes(kernels: Kernels) -> None:
    sampling, step = buffers_of(ROWS)
    logits = random_logits(kernels, len(ROWS) + 1)
    before = logits.tolist()

    run(kernels, lambda operations: operations.adjust_logits(sampling, logits, step=step))

    for number, row in enumerate(ROWS):
        expected = [
            row.formula(logit, token_id) if token_id in row.entries else logit
            for token_id, logit in enumerate(before[number])
        ]
        rounded = torch.tensor(expected, dtype=torch.float64).to(logits.dtype)
        assert torch.equal(logits[number], rounded), f"row {number}"
    assert logits[len(ROWS)].tolist() == before[len(ROWS)], "a row without adjustments was changed"


def test_restored_logits_are_those_that_were(kernels: Kernels) -> None:
    sampling, step = buffers_of(ROWS)
    logits = random_logits(kernels, len(ROWS))
    before = logits.clone()

    def calls(operations: Operations) -> None:
        operations.adjust_logits(sampling, logits, step=step)
        operations.restore_logits(sampling, logits, step=step)

    run(kernels, calls)

    assert torch.equal(logits, before)


def test_a_row_gets_the_same_bits_in_a_batch_as_alone(kernels: Kernels) -> None:
    together = random_logits(kernels, len(ROWS))
    alone = together.clone()

    sampling, step = buffers_of(ROWS)
    run(kernels, lambda operations: operations.adjust_logits(sampling, together, step=step))
    for number, row in enumerate(ROWS):
        one_sampling, one_step = buffers_of((row,))
        one = alone[number : number + 1]
        run(kernels, lambda operations: operations.adjust_logits(one_sampling, one, step=one_step))  # noqa: B023

    assert np.array_equal(together.numpy(), alone.numpy())


def test_the_choice_sees_adjustments_and_log_probabilities_do_not(kernels: Kernels) -> None:
    sampling, step = buffers_of((Row({1: (-math.inf, NEVER_SEEN)}), Row()))
    step.header[StepCount.LOGPROBS] = 1
    sampling.logprob_rows[0] = 0
    logits = torch.zeros(2, VOCAB, dtype=kernels.formats.activations)
    logits[:, 1], logits[:, 2] = 3.0, 2.0

    def calls(operations: Operations) -> None:
        operations.adjust_logits(sampling, logits, step=step)
        operations.choose_greedy(sampling, logits, step=step)
        operations.restore_logits(sampling, logits, step=step)
        operations.logprobs(sampling, logits, step=step)

    run(kernels, calls)

    assert sampling.chosen_ids[:2].tolist() == [2, 1]
    total = math.log(VOCAB - 2 + math.exp(3) + math.exp(2))
    assert sampling.chosen_logprobs[0].item() == pytest.approx(2 - total)
    assert sampling.top_ids[0].tolist() == [1, 2]
    assert sampling.top_logprobs[0].tolist() == pytest.approx([3 - total, 2 - total])


def test_a_row_that_may_choose_nothing_is_not_usable(kernels: Kernels) -> None:
    sampling, step = buffers_of((Row(dict.fromkeys(range(VOCAB), (-math.inf, NEVER_SEEN))), Row()))
    logits = random_logits(kernels, 2)

    def calls(operations: Operations) -> None:
        operations.adjust_logits(sampling, logits, step=step)
        operations.choose_greedy(sampling, logits, step=step)

    run(kernels, calls)

    assert sampling.usable[:2].tolist() == [False, True]
