"""Sequences whose logits are adjusted, token by token, against formulas over the whole text so far."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from shardline_workers.engine import Sampling
from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.native_kernels import NativeKernels
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.reference_kernels import ReferenceKernels
from shardline_workers.ranks.input_tensors import InputTensors
from shardline_workers.ranks.logit_adjustments import check_named_ids
from shardline_workers.ranks.sampler import Sampler
from shardline_workers.scheduling.request import SequenceKey
from shardline_workers.scheduling.step_plan import SampledToken, ScheduledChunk, SlotStart, StepPlan
from tests.workers.ranks.unshared_logits import unshared

VOCAB = 40
MAX_SEQS = 4
CPU = torch.device("cpu")
PROMPT = (3, 7, 7, 11)
GREEDY = Sampling(temperature=0.0)
FIELDS = {
    "repetition": dataclasses.replace(GREEDY, repetition_penalty=1.7),
    "repetition that rewards": dataclasses.replace(GREEDY, repetition_penalty=0.6),
    "frequency": dataclasses.replace(GREEDY, frequency_penalty=0.5),
    "presence": dataclasses.replace(GREEDY, presence_penalty=1.5),
    "presence that rewards": dataclasses.replace(GREEDY, presence_penalty=-2.0),
    "bias": dataclasses.replace(GREEDY, logit_bias=((3, 1.25), (8, -100.0), (9, 100.0))),
    "min_tokens": dataclasses.replace(GREEDY, min_tokens=9, stop_token_ids=frozenset(range(0, VOCAB, 2))),
    "a bad word of one token": dataclasses.replace(GREEDY, bad_words=((5,), (6,), (7,))),
    "bad words of several": dataclasses.replace(
        GREEDY, bad_words=tuple((first, second) for first in range(0, VOCAB, 3) for second in range(VOCAB // 2))
    ),
}
FIELDS["all"] = Sampling(
    temperature=0.0,
    min_tokens=6,
    stop_token_ids=frozenset({1, 2, VOCAB + 5}),
    logit_bias=((3, 1.25), (1, 4.0)),
    repetition_penalty=1.3,
    frequency_penalty=0.2,
    presence_penalty=0.4,
    bad_words=((7,), (3, 9), (9, 3, 9)),
)


@pytest.fixture(params=["reference", "native"])
def kernels(request: pytest.FixtureRequest, native_library: NativeLibrary) -> Iterator[Kernels]:
    if request.param == "native":
        with NativeKernels(native_library, num_threads=1) as native:
            yield native
    else:
        yield ReferenceKernels(dtype=torch.float32, device=CPU)


class Sequences:
    """A sampler with a sequence in each slot; logits of a position are the same whoever asks."""

    def __init__(
        self, kernels: Kernels, samplings: Sequence[Sampling], *, outputs: Sequence[tuple[int, ...]] | None = None
    ) -> None:
        self._inputs = InputTensors(
            max_tokens=64, max_seqs=MAX_SEQS, max_sampled=MAX_SEQS, max_blocks=64, block_size=1, device=CPU
        )
        self._sampler = Sampler(
            max_seqs=MAX_SEQS,
            max_sampled=MAX_SEQS,
            max_logprobs=2,
            max_model_len=128,
            vocab_size=VOCAB,
            num_ranks=1,
            device=CPU,
        )
        self._logits = torch.zeros(MAX_SEQS, VOCAB)
        self._samplings = samplings
        self.outputs = [list(output) for output in outputs or [()] * len(samplings)]
        self._is_new = True

        def calls(operations: Operations) -> None:
            self._sampler.choose(operations, unshared(self._logits), self._inputs.step)

        self._program = kernels.record(calls)

    def step(self) -> list[SampledToken]:
        plan = StepPlan(starts=self._starts() if self._is_new else (), chunks=self._chunks())
        self._is_new = False
        for row, output in enumerate(self.outputs):
            self._logits[row] = torch.from_numpy(logits_at(len(output)))
        self._inputs.write(plan)
        self._sampler.write(plan, self._inputs.header)
        self._program.run(1)
        tokens = self._sampler.results()
        for output, token in zip(self.outputs, tokens, strict=True):
            output.append(token.token_id)
        return tokens

    def run(self, num_steps: int) -> list[list[int]]:
        for _ in range(num_steps):
            self.step()
        return self.outputs

    def _starts(self) -> tuple[SlotStart, ...]:
        return tuple(
            SlotStart(
                slot=slot,
                sequence=0,
                sampling=sampling,
                num_prompt_tokens=len(PROMPT),
                token_ids=(*PROMPT, *self.outputs[slot]),
            )
            for slot, sampling in enumerate(self._samplings)
        )

    def _chunks(self) -> tuple[ScheduledChunk, ...]:
        return tuple(self._chunk(slot, [*PROMPT, *output]) for slot, output in enumerate(self.outputs))

    def _chunk(self, slot: int, token_ids: list[int]) -> ScheduledChunk:
        start = 0 if self._is_new else len(token_ids) - 1
        return ScheduledChunk(
            key=SequenceKey(f"r{slot}", 0),
            arrival=slot,
            slot=slot,
            start=start,
            token_ids=tuple(token_ids[start:]),
            first_new_block=0,
            new_block_ids=(),
            samples=True,
        )


def logits_at(position: int) -> np.ndarray:
    """Near one another, so that small changes decide; some positive, some not."""
    return np.random.default_rng(position).normal(scale=1.5, size=VOCAB).astype(np.float32)


def adjusted(sampling: Sampling, output: Sequence[int]) -> list[float]:
    """The definitions, in plain Python floats over the whole text."""
    logits = [float(logit) for logit in logits_at(len(output))]
    for token_id, bias in sampling.logit_bias:
        logits[token_id] += bias
    for token_id in {*PROMPT, *output}:
        positive = logits[token_id] > 0
        factor = 1 / sampling.repetition_penalty if positive else sampling.repetition_penalty
        logits[token_id] *= factor
    for token_id in set(output):
        logits[token_id] -= sampling.frequency_penalty * output.count(token_id) + sampling.presence_penalty
    for token_id in range(VOCAB):
        is_too_early = token_id in sampling.stop_token_ids and len(output) < sampling.min_tokens
        if is_too_early or any(ends_in([*output, token_id], word) for word in sampling.bad_words):
            logits[token_id] = -np.inf
    return logits


def ends_in(output: list[int], word: tuple[int, ...]) -> bool:
    return tuple(output[-len(word) :]) == word


@pytest.mark.parametrize("field", FIELDS)
def test_each_token_is_the_likeliest_by_the_formula(kernels: Kernels, field: str) -> None:
    sampling = FIELDS[field]
    sequences = Sequences(kernels, [sampling])

    (output,) = sequences.run(30)

    for position in range(30):
        logits = adjusted(sampling, output[:position])
        assert output[position] == int(np.argmax(logits)), f"token {position}"


@pytest.mark.parametrize("field", FIELDS)
def test_the_field_makes_a_difference_here(kernels: Kernels, field: str) -> None:
    assert Sequences(kernels, [FIELDS[field]]).run(30) != Sequences(kernels, [GREEDY]).run(30)


def test_a_sequence_that_goes_on_from_its_log_goes_on_the_same_way(kernels: Kernels) -> None:
    for field, sampling in FIELDS.items():
        (whole,) = Sequences(kernels, [sampling]).run(20)
        for cut in (1, 7, 19):
            (resumed,) = Sequences(kernels, [sampling], outputs=[tuple(whole[:cut])]).run(20 - cut)

            assert resumed == whole, f"{field}, resumed after {cut}"


def test_neighbours_in_a_batch_change_nothing(kernels: Kernels) -> None:
    batch = [FIELDS["all"], GREEDY, FIELDS["frequency"], FIELDS["min_tokens"]]

    together = Sequences(kernels, batch).run(20)

    assert together == [Sequences(kernels, [sampling]).run(20)[0] for sampling in batch]


def test_a_slot_forgets_the_sequence_before(kernels: Kernels) -> None:
    sequences = Sequences(kernels, [FIELDS["all"]])
    sequences.run(10)

    sequences._samplings, sequences.outputs, sequences._is_new = [GREEDY], [[]], True

    assert sequences.run(10) == Sequences(kernels, [GREEDY]).run(10)


def test_log_probabilities_are_those_of_the_unchanged_logits(kernels: Kernels) -> None:
    sequences = Sequences(kernels, [dataclasses.replace(FIELDS["all"], num_logprobs=2)])

    for position in range(12):
        (token,) = sequences.step()

        logits = logits_at(position).astype(np.float64)
        logprobs = logits - np.log(np.exp(logits).sum())
        assert token.logprobs is not None
        assert token.logprobs.chosen == pytest.approx(logprobs[token.token_id], abs=1e-9)
        assert token.logprobs.top_ids == tuple(np.argsort(-logprobs)[:2])


def test_draws_follow_the_adjusted_distribution(kernels: Kernels) -> None:
    sampling = dataclasses.replace(FIELDS["all"], temperature=1.0)
    weights = np.exp(adjusted(sampling, ()))
    probabilities = weights / weights.sum()
    num_draws = 2000

    counts = np.zeros(VOCAB)
    for seed in range(num_draws // MAX_SEQS):
        batch = [dataclasses.replace(sampling, seed=MAX_SEQS * seed + number) for number in range(MAX_SEQS)]
        for (token_id,) in Sequences(kernels, batch).run(1):
            counts[token_id] += 1

    spread = np.sqrt(num_draws * probabilities * (1 - probabilities))
    assert (np.abs(counts - num_draws * probabilities) <= 4.5 * spread + 1).all()
    assert counts[probabilities == 0].sum() == 0


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (dataclasses.replace(GREEDY, logit_bias=((VOCAB, 1.0),)), "token id 40, but the vocabulary is 0 to 39"),
        (dataclasses.replace(GREEDY, bad_words=((1, -1),)), "token id -1"),
        (dataclasses.replace(GREEDY, bad_words=((1, 2),) * 2049), "name 2049 tokens, but at most 2048"),
    ],
)
def test_tokens_that_are_not_the_models_are_refused(sampling: Sampling, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_named_ids(sampling, vocab_size=VOCAB)
