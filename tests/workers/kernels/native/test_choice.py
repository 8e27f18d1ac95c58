"""The sampler against the formulas of reference_sampling, on logits of many shapes."""

import numpy as np
import pytest
import torch

from shardline_workers.kernels import native_api as api
from shardline_workers.kernels import reference_sampling as reference
from shardline_workers.kernels.native_api import OpKind
from shardline_workers.kernels.noise import noise_key
from shardline_workers.kernels.step_buffers import StepCount
from tests.workers.kernels.native.programs import Array, Batch, Floats, Machine, address, op

NUM_TOP = 5
PARAMETERS = ["temperatures", "top_ks", "top_ps", "min_ps", "noise_keys", "drawn_rows", "logprob_rows"]
RESULTS = ["chosen_ids", "usable", "chosen_logprobs", "top_ids", "top_logprobs"]


class Sampling:
    """Logits [rows, vocab], and the buffers of a sampler that wants of every row the same."""

    def __init__(
        self,
        logits: Floats,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        seed: int = 0,
    ) -> None:
        rows = len(logits)
        self.logits = np.ascontiguousarray(logits)
        self.temperatures = np.full(rows, temperature)
        self.top_ks = np.full(rows, top_k, dtype=np.int64)
        self.top_ps = np.full(rows, top_p)
        self.min_ps = np.full(rows, min_p)
        self.noise_keys = np.array(
            [noise_key(seed=seed, sequence=0, position=row) for row in range(rows)], dtype=np.int64
        )
        self.rows = np.arange(rows, dtype=np.int64)[::-1].copy()
        self.chosen_ids = np.full(rows, -1, dtype=np.int64)
        self.usable = np.full(rows, 7, dtype=np.uint8)
        self.chosen_logprobs = np.zeros(rows)
        self.top_ids = np.zeros((rows, NUM_TOP), dtype=np.int64)
        self.top_logprobs = np.zeros((rows, NUM_TOP))

    def choose(self, machine: Machine, *kinds: OpKind, isa: int | None = None, num_threads: int = 2) -> None:
        rows, vocab = self.logits.shape
        parameters: list[Array] = [
            self.temperatures,
            self.top_ks,
            self.top_ps,
            self.min_ps,
            self.noise_keys,
            self.rows,
            self.rows,
        ]
        results: list[Array] = [self.chosen_ids, self.usable, self.chosen_logprobs, self.top_ids, self.top_logprobs]
        given = zip(PARAMETERS + RESULTS, map(address, parameters + results), strict=True)
        choice = api.Choice(address(self.logits), vocab, vocab, NUM_TOP, **dict(given))
        cuts = bool(self.top_ks[0] or self.top_ps[0] < 1)
        counts = {StepCount.DRAWN: rows, StepCount.CUT: rows if cuts else 0, StepCount.LOGPROBS: rows}
        machine.run(
            [op(kind, choice, rows=StepCount.SAMPLED) for kind in kinds],
            Batch(num_sampled=rows, counts=counts),
            isa=isa,
            num_threads=num_threads,
        )

    def expected(self) -> list[int]:
        """What the reference draws."""
        scaled = reference.scale(torch.from_numpy(self.logits), torch.from_numpy(self.temperatures))
        scaled = reference.cut_top(scaled, top_ks=torch.from_numpy(self.top_ks), top_ps=torch.from_numpy(self.top_ps))
        scaled = reference.cut_min_p(scaled, torch.from_numpy(self.min_ps))
        return reference.draw(scaled, torch.from_numpy(self.noise_keys)).tolist()


def logits_of(shape: str, rows: int, vocab: int, seed: int = 0) -> Floats:
    generator = np.random.default_rng(seed)
    logits = generator.standard_normal((rows, vocab), dtype=np.float32)
    match shape:
        case "flat":
            return logits * np.float32(0.01)
        case "peaked":
            return logits * np.float32(9)
        case "tied":
            return np.round(logits * 2) / np.float32(2)
        case "equal":
            return np.zeros_like(logits)
        case "masked":
            logits[generator.random(logits.shape) < 0.9] = -np.inf
            logits[:, 0] = 1
            return logits
    return logits * np.float32(3)


SHAPES = ["usual", "flat", "peaked", "tied", "equal", "masked"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("vocab", [5, 16, 1003])
def test_the_greedy_choice_is_the_first_of_the_greatest(machine: Machine, shape: str, vocab: int) -> None:
    logits = logits_of(shape, 9, vocab)
    for isa in machine.library.available_isas().values():
        sampling = Sampling(logits)

        sampling.choose(machine, OpKind.CHOOSE_GREEDY, isa=isa)

        assert sampling.chosen_ids.tolist() == logits.argmax(axis=-1).tolist()
        assert sampling.usable.tolist() == [1] * 9


def test_rows_without_a_finite_greatest_are_not_usable(machine: Machine) -> None:
    logits = logits_of("usual", 5, 100)
    logits[0, 99] = np.nan
    logits[1, 3] = np.inf
    logits[2] = -np.inf
    logits[3, 7] = -np.inf
    for isa in machine.library.available_isas().values():
        sampling = Sampling(logits)

        sampling.choose(machine, OpKind.CHOOSE_GREEDY, OpKind.CHOOSE_DRAWN, OpKind.LOGPROBS, isa=isa)

        assert sampling.usable.tolist() == [0, 0, 0, 1, 1]
        assert sampling.chosen_ids[:3].tolist() == [0, 0, 0]
        assert (
            np.isnan(sampling.chosen_logprobs[::-1][:3]).all() and np.isfinite(sampling.chosen_logprobs[::-1][3:]).all()
        )


CUTS = [
    {},
    {"temperature": 0.3},
    {"temperature": 5.0},
    {"temperature": 1e-6},
    {"top_k": 1},
    {"top_k": 40},
    {"top_k": 2000},
    {"top_p": 0.9},
    {"top_p": 1e-9},
    {"top_p": 0.999, "temperature": 2.0},
    {"top_k": 20, "top_p": 0.8, "min_p": 0.05},
    {"min_p": 0.2},
    {"min_p": 1.0},
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_draws_are_the_reference_s(machine: Machine, shape: str, cut: dict[str, float]) -> None:
    for seed in range(3):
        sampling = Sampling(logits_of(shape, 32, 1003, seed), seed=seed, **cut)  # type: ignore[arg-type]

        sampling.choose(machine, OpKind.CHOOSE_GREEDY, OpKind.CHOOSE_DRAWN)

        assert sampling.chosen_ids.tolist() == sampling.expected()


def test_draws_of_a_real_vocabulary_are_the_reference_s(machine: Machine) -> None:
    for cut in CUTS:
        sampling = Sampling(logits_of("usual", 4, 49_152), seed=5, **cut)  # type: ignore[arg-type]

        sampling.choose(machine, OpKind.CHOOSE_GREEDY, OpKind.CHOOSE_DRAWN)

        assert sampling.chosen_ids.tolist() == sampling.expected(), cut


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_draws_are_the_same_on_every_instruction_set(machine: Machine, cut: dict[str, float]) -> None:
    logits = logits_of("usual", 8, 1003)
    results = set()
    for isa in machine.library.available_isas().values():
        for num_threads in (1, 2):
            sampling = Sampling(logits, **cut)  # type: ignore[arg-type]
            kinds = (OpKind.CHOOSE_GREEDY, OpKind.CHOOSE_DRAWN, OpKind.LOGPROBS)
            sampling.choose(machine, *kinds, isa=isa, num_threads=num_threads)
            parts = (sampling.chosen_ids, sampling.chosen_logprobs, sampling.top_ids, sampling.top_logprobs)
            results.add(b"".join(part.tobytes() for part in parts))

    assert len(results) == 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("vocab", [5, 1003])
def test_log_probabilities_are_those_of_float64(machine: Machine, shape: str, vocab: int) -> None:
    sampling = Sampling(logits_of(shape, 6, vocab))

    sampling.choose(machine, OpKind.CHOOSE_GREEDY, OpKind.LOGPROBS)

    logprobs = torch.from_numpy(sampling.logits).double().log_softmax(dim=-1).numpy()[::-1]
    order = np.argsort(-logprobs, axis=-1, kind="stable")[:, :NUM_TOP]
    assert np.array_equal(sampling.top_ids, order)
    np.testing.assert_allclose(sampling.top_logprobs, np.take_along_axis(logprobs, order, -1), rtol=1e-12, atol=1e-15)
    chosen = sampling.chosen_ids[::-1]
    np.testing.assert_allclose(sampling.chosen_logprobs, logprobs[np.arange(6), chosen], rtol=1e-12, atol=1e-15)
