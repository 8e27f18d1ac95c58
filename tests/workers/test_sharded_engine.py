"""The whole engine on a tiny random model in float64: whatever happens around a request, its tokens are the same."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from shardline_workers.engine import (
    EngineRequest,
    FinishReason,
    RequestTooLargeError,
    Sampling,
)
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.files.model_source import ModelFiles
from shardline_workers.kernels.reference_kernels import ReferenceKernels
from shardline_workers.sharded_engine import ShardedEngine
from tests.workers.engine_runs import ADJUSTED, DRAWN, GREEDY, PROMPT, others, request, run, steps
from tests.workers.tiny_checkpoint import VOCAB_SIZE, tiny_tensors, write_tiny_checkpoint

UNENDING = dataclasses.replace(ADJUSTED, min_tokens=ADJUSTED.max_tokens)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def load(
    files: ModelFiles,
    *,
    kv_cache_tokens: int = 1024,
    max_num_batched_tokens: int = 64,
    max_num_seqs: int = 8,
    enable_prefix_caching: bool = True,
) -> ShardedEngine:
    config = EngineConfig(
        files=files,
        dtype="float64",
        max_model_len=128,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        kv_cache_tokens=kv_cache_tokens,
        block_size=8,
        enable_prefix_caching=enable_prefix_caching,
        replicas_on_host=64,
    )
    return load_engine(config, report=lambda _: None)


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN, UNENDING], ids=["greedy", "drawn", "adjusted"])
class TestTheSameTokensWhateverHappens:
    @pytest.fixture
    def alone(self, files: ModelFiles, sampling: Sampling) -> tuple[int, ...]:
        tokens = run(load(files), request(sampling))["r", 0]
        assert len(tokens) == sampling.max_tokens
        assert len(set(tokens)) > 5, "a model that repeats itself shows nothing"
        return tokens

    def test_in_a_batch(self, files: ModelFiles, sampling: Sampling, alone: tuple[int, ...]) -> None:
        outputs = run(load(files), *others(sampling), request(sampling))

        assert outputs["r", 0] == alone

    def test_in_small_chunks(self, files: ModelFiles, sampling: Sampling, alone: tuple[int, ...]) -> None:
        engine = load(files, max_num_batched_tokens=8)

        assert run(engine, *others(sampling), request(sampling))["r", 0] == alone

    def test_after_preemption(self, files: ModelFiles, sampling: Sampling, alone: tuple[int, ...]) -> None:
        engine = load(files, kv_cache_tokens=128, enable_prefix_caching=False)
        for one in [*others(sampling)[2:], request(sampling)]:
            engine.add(one)

        num_preempted = 0
        tokens: tuple[int, ...] = ()
        while engine.has_work():
            result = engine.step()
            engine.check_integrity()
            num_preempted += result.num_preempted
            tokens += tuple(t for step in result.sequences if step.request_id == "r" for t in step.token_ids)

        assert num_preempted > 0
        assert tokens == alone

    def test_with_a_prefix_hit(self, files: ModelFiles, sampling: Sampling, alone: tuple[int, ...]) -> None:
        engine = load(files)
        run(engine, request(sampling, request_id="before"))

        engine.add(request(sampling))
        first = engine.step()
        outputs = run(engine)

        assert first.num_prefill_tokens == len(PROMPT) - 32
        assert first.sequences[0].token_ids + outputs["r", 0] == alone

    @pytest.mark.parametrize("resumed_after", [1, 11, 12, 23])
    def test_resumed_after_a_part_of_them(
        self, files: ModelFiles, sampling: Sampling, alone: tuple[int, ...], resumed_after: int
    ) -> None:
        resumed = request(sampling, generated=alone[:resumed_after])

        outputs = run(load(files), *others(sampling), resumed)

        assert alone[:resumed_after] + outputs["r", 0] == alone

    def test_as_one_of_several_sequences(self, files: ModelFiles, sampling: Sampling, alone: tuple[int, ...]) -> None:
        outputs = run(load(files), request(sampling, num_sequences=3))

        assert outputs["r", 0] == alone
        assert (len(set(outputs.values())) == 1) == (sampling.temperature == 0)


def test_sequences_of_a_request_compute_their_prompt_once_and_share_its_full_blocks(files: ModelFiles) -> None:
    num_sequences, block_size = 4, 8
    engine = load(files)
    engine.add(request(DRAWN, num_sequences=num_sequences))
    shared = (len(PROMPT) - 1) // block_size * block_size
    rest = len(PROMPT) - shared

    num_prefilled, told = 0, set[int]()
    while len(told) < num_sequences:
        result = engine.step()
        engine.check_integrity()
        num_prefilled += result.num_prefill_tokens
        told |= {step.sequence for step in result.sequences}

    assert num_prefilled == len(PROMPT) + (num_sequences - 1) * rest
    own_blocks = num_sequences  # each holds the rest of the prompt and its first tokens in one
    held = engine.description.kv_cache_tokens - engine.capacity().free_tokens
    assert held == shared + own_blocks * block_size
    for sequence in range(num_sequences):
        engine.stop_sequence("r", sequence)
        engine.check_integrity()
    assert engine.capacity().free_tokens == engine.description.kv_cache_tokens


def test_another_seed_gives_other_tokens(files: ModelFiles) -> None:
    one = run(load(files), request(DRAWN))

    other = run(load(files), request(dataclasses.replace(DRAWN, seed=6)))

    assert one != other


def test_logprobs_are_those_of_the_whole_distribution(files: ModelFiles) -> None:
    engine = load(files)
    engine.add(request(dataclasses.replace(DRAWN, max_tokens=4, num_logprobs=3)))
    engine.add(request(dataclasses.replace(GREEDY, max_tokens=4, num_logprobs=0), request_id="greedy"))

    told = [(step.request_id, step.token_ids[0], step.logprobs[0]) for step in steps(engine)]

    drawn = [logprobs for request_id, _, logprobs in told if request_id == "r"]
    greedy = [logprobs for request_id, _, logprobs in told if request_id == "greedy"]
    assert all(len(logprobs.top_ids) == 3 and list(logprobs.top) == sorted(logprobs.top)[::-1] for logprobs in drawn)
    assert all(logprobs.top_ids == () and logprobs.top == () for logprobs in greedy)
    assert drawn[0].top[0] == pytest.approx(greedy[0].chosen, abs=1e-12)
    for request_id, token_id, logprobs in told:
        if request_id == "r" and token_id in logprobs.top_ids:
            assert logprobs.chosen == logprobs.top[logprobs.top_ids.index(token_id)]


def test_a_stop_token_ends_its_sequence(files: ModelFiles) -> None:
    tokens = run(load(files), request(GREEDY))["r", 0]
    stop = tokens[6]
    engine = load(files)
    engine.add(request(dataclasses.replace(GREEDY, stop_token_ids=frozenset({stop}))))

    last = list(steps(engine))[-1]

    assert (last.token_ids, last.finish) == ((stop,), FinishReason.STOP)


def test_a_request_cancelled_in_the_middle_leaves_nothing_behind(files: ModelFiles) -> None:
    engine = load(files)
    engine.add(request(GREEDY, num_sequences=3))
    for _ in range(5):
        engine.step()

    engine.stop_sequence("r", 1)
    remaining = {step.sequence for step in engine.step().sequences}
    engine.cancel("r")
    engine.check_integrity()

    assert remaining == {0, 2}
    assert not engine.has_work()
    assert engine.capacity().free_tokens == engine.description.kv_cache_tokens


def test_nan_in_the_logits_ends_that_request_only(tmp_path: Path) -> None:
    tensors = tiny_tensors()
    tensors["model.embed_tokens.weight"][VOCAB_SIZE - 1] = np.nan
    engine = load(write_tiny_checkpoint(tmp_path, tensors=tensors))
    healthy = request(GREEDY, request_id="healthy", prompt=(1, 2, 3))
    engine.add(healthy)
    engine.add(request(GREEDY, request_id="sick", prompt=(VOCAB_SIZE - 1, 2, 3), num_sequences=2))

    told = list(steps(engine))

    sick = [step for step in told if step.request_id == "sick"]
    assert [(step.token_ids, "NaN" in (step.error or "")) for step in sick] == [((), True)]
    tokens = tuple(step.token_ids[0] for step in told if step.request_id == "healthy")
    assert tokens == run(engine, dataclasses.replace(healthy, request_id="again"))["again", 0]


def test_an_idle_step_probes_and_changes_nothing(files: ModelFiles) -> None:
    engine = load(files)

    result = engine.step()

    assert (result.sequences, result.num_decode_tokens) == ((), 0)
    assert engine.capacity().free_tokens == engine.description.kv_cache_tokens
    assert run(engine, request(GREEDY)) == run(load(files), request(GREEDY))


def test_the_expected_time_of_a_step_is_measured(files: ModelFiles) -> None:
    engine = load(files)
    idle_s = engine.expected_step_s()

    engine.add(request(GREEDY))

    assert 0 < idle_s < 1.0
    assert engine.expected_step_s() > 0


def test_equal_engines_have_equal_numerics_ids_and_other_weights_or_dtypes_another(files: ModelFiles) -> None:
    config = EngineConfig(files=files, dtype="float64", kv_cache_tokens=256, replicas_on_host=64)
    variants = [
        config,
        dataclasses.replace(config, kv_cache_tokens=512),
        dataclasses.replace(config, dtype="auto"),
        dataclasses.replace(config, kv_cache_dtype="int8"),
        dataclasses.replace(config, files=dataclasses.replace(files, digest="f" * 16)),
    ]

    ids = [load_engine(variant, report=lambda _: None).description.numerics_id for variant in variants]

    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


def test_what_was_loaded_is_told(files: ModelFiles) -> None:
    lines: list[str] = []

    engine = load_engine(EngineConfig(files=files, kv_cache_tokens=512, replicas_on_host=64), report=lines.append)

    told = "\n".join(lines)
    assert "as float32 on cpu" in told
    assert "weights: 0 MiB" in told
    assert "KV cache: 512 tokens (0 MiB of float32)" in told
    assert "2.0 requests of 256 tokens at once" in told
    assert engine.description.details["dtype"] == "float32"
    assert (engine.description.vocab_size, engine.description.max_model_len) == (VOCAB_SIZE, 256)


def test_the_context_shrinks_to_a_small_cache(files: ModelFiles) -> None:
    engine = load_engine(EngineConfig(files=files, kv_cache_tokens=100, replicas_on_host=64), report=lambda _: None)

    assert engine.description.max_model_len == 96


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_model_len": 257}, "max_model_len is 257; this model was made for 1 to 256 tokens"),
        ({"max_model_len": 256, "kv_cache_tokens": 64}, "the KV cache holds 64 tokens; lower it"),
        ({"kv_cache_dtype": "int4"}, "kv_cache_dtype is 'int4'; it must be one of auto, bfloat16, int8"),
        ({"dtype": "int4"}, "dtype is 'int4'; it must be one of auto, float32"),
        ({"max_num_seqs": 600}, "max_num_batched_tokens is 512, less than max_num_seqs = 600"),
    ],
)
def test_a_configuration_that_cannot_be_met_is_refused(
    files: ModelFiles, changes: dict[str, object], message: str
) -> None:
    config = dataclasses.replace(EngineConfig(files=files, kv_cache_tokens=512), **changes)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=message):
        load_engine(config, report=lambda _: None)


def test_an_engine_that_cannot_be_built_leaves_no_kernels_open(
    files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[ReferenceKernels] = []
    monkeypatch.setattr(ReferenceKernels, "close", lambda kernels: closed.append(kernels))

    with pytest.raises(ValueError, match="max_model_len is 999"):
        load_engine(EngineConfig(files=files, kernels="reference", max_model_len=999), report=lambda _: None)

    assert len(closed) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (request(GREEDY, prompt=(1, VOCAB_SIZE)), "token id 96 is outside of the model's vocabulary, 0 to 95"),
        (request(GREEDY, prompt=(1, -1)), "token id -1 is outside"),
        (request(GREEDY, generated=(VOCAB_SIZE,)), "token id 96 is outside"),
        (request(dataclasses.replace(GREEDY, num_logprobs=21)), "num_logprobs is 21; it must be between 0 and 20"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(files: ModelFiles, wrong: EngineRequest, message: str) -> None:
    engine = load(files)

    with pytest.raises(ValueError, match=message):
        engine.add(wrong)

    assert not engine.has_work()


def test_a_request_that_never_fits_is_refused(files: ModelFiles) -> None:
    with pytest.raises(RequestTooLargeError, match="make 129, more than the 128"):
        load(files).add(request(dataclasses.replace(GREEDY, max_tokens=128 - len(PROMPT) + 1)))


def test_narrow_dtypes_run_too(files: ModelFiles) -> None:
    config = EngineConfig(files=files, dtype="bfloat16", kv_cache_tokens=512, replicas_on_host=64)

    tokens = run(load_engine(config, report=lambda _: None), request(GREEDY))["r", 0]

    assert len(tokens) == GREEDY.max_tokens
