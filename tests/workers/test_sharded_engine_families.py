"""Gemma 3 and Qwen 3 in the engine: one model in both kinds of files is one model, and native kernels are near the
float64 reference on the same weights and give the same bits whatever happens around a request."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from shardline_workers.engine import EngineRequest, Sampling, SequenceStart, TokenLogprobs
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.files.model_source import ModelFiles
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.sharded_engine import ShardedEngine
from tests.workers.engine_runs import steps
from tests.workers.tiny_checkpoint import VOCAB_SIZE
from tests.workers.tiny_families import (
    TINY_FAMILIES,
    WINDOW,
    random_tensors,
    write_family_folder,
    write_family_gguf,
)

GREEDY = Sampling(temperature=0.0, max_tokens=12, num_logprobs=5)
# Longer than the window of some layers, and than one split of attention, 256 keys.
PROMPT = tuple((7 * number * number + 3 * number + 1) % VOCAB_SIZE for number in range(290))
assert len(PROMPT) > WINDOW
QUANTISED = ("Q8_0", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")

Told = tuple[tuple[int, TokenLogprobs], ...]  # tokens and what was told of each


def load(files: ModelFiles, *, environment: Mapping[str, str] = os.environ, **changes: object) -> ShardedEngine:
    config = EngineConfig(
        files=files,
        kernels="native",
        max_model_len=512,
        max_num_seqs=8,
        max_num_batched_tokens=512,
        kv_cache_tokens=4096,
        block_size=32,
        replicas_on_host=64,
    )
    changed = dataclasses.replace(config, **changes)  # type: ignore[arg-type]
    return load_engine(changed, report=lambda _: None, environment=environment)


def wanted(sampling: Sampling = GREEDY, *, request_id: str = "r", generated: tuple[int, ...] = ()) -> EngineRequest:
    return EngineRequest(
        request_id=request_id,
        prompt_ids=PROMPT if request_id == "r" else PROMPT[int(request_id) :],
        sampling=sampling,
        sequences=(SequenceStart(generated_ids=generated),),
    )


def run(engine: ShardedEngine, *requests: EngineRequest) -> Told:
    """Runs to the end; what was told of the request "r"."""
    for one in requests:
        engine.add(one)
    told: list[tuple[int, TokenLogprobs]] = []
    for step in steps(engine):
        if step.request_id == "r":
            told.extend(zip(step.token_ids, step.logprobs, strict=True))
    engine.close()
    return tuple(told)


@pytest.mark.parametrize("name", TINY_FAMILIES)
def test_a_folder_and_a_gguf_file_of_one_model_are_one_model(tmp_path: Path, name: str) -> None:
    family = TINY_FAMILIES[name]
    tensors = random_tensors(family)
    folder = write_family_folder(tmp_path / "folder", family, tensors)
    file = write_family_gguf(tmp_path / "m.gguf", family, tensors, form="F32")

    by_folder, by_file = (run(load(files, kernels="reference", dtype="float64"), wanted()) for files in (folder, file))

    assert [token for token, _ in by_folder] == [token for token, _ in by_file]
    for (_, ours), (_, theirs) in zip(by_folder, by_file, strict=True):
        # A folder has Gemma's norms less 1, in float32.
        assert ours.top == pytest.approx(theirs.top, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "form"),
    [("gemma3", "BF16"), *(("gemma3", form) for form in QUANTISED), ("qwen3", "Q4_K"), ("qwen3-moe", "Q4_K")],
)
def test_log_probabilities_are_those_of_the_reference_within_the_formats_rounding(
    tmp_path: Path, native_library: NativeLibrary, name: str, form: str
) -> None:
    family = TINY_FAMILIES[name]
    files = write_family_gguf(tmp_path / "m.gguf", family, random_tensors(family), form=form)
    native = run(load(files), wanted())
    generated = tuple(token for token, _ in native[:-1])
    wide = dataclasses.replace(GREEDY, num_logprobs=20, max_tokens=len(native))

    # The reference goes the same way: it is forced along our tokens.
    ((_, first),) = run(
        load(files, kernels="reference", dtype="float64"), wanted(dataclasses.replace(wide, max_tokens=1))
    )
    ((_, last),) = run(load(files, kernels="reference", dtype="float64"), wanted(wide, generated=generated))

    for (_, ours), oracle in ((native[0], first), (native[-1], last)):
        expected = dict(zip(oracle.top_ids, oracle.top, strict=True))
        differences = [abs(value - expected[token]) for token, value in zip(ours.top_ids, ours.top, strict=True)]
        assert max(differences) < 0.1


@pytest.fixture(scope="module", params=["gemma3", "qwen3", "qwen3-moe"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    family = TINY_FAMILIES[request.param]
    path = tmp_path_factory.mktemp("families") / "m.gguf"
    return write_family_gguf(path, family, random_tensors(family, seed=3), form="Q4_K")


@pytest.fixture(scope="module")
def alone(files: ModelFiles, native_library: NativeLibrary) -> Told:
    return run(load(files), wanted())


@pytest.mark.parametrize("budget", [16, 100, 512])
def test_the_same_bits_in_a_batch_and_in_chunks(files: ModelFiles, alone: Told, budget: int) -> None:
    engine = load(files, max_num_batched_tokens=budget)

    assert run(engine, wanted(request_id="1"), wanted(request_id="40"), wanted()) == alone


def test_the_same_bits_resumed_on_another_replica(files: ModelFiles, alone: Told) -> None:
    generated = tuple(token for token, _ in alone[:5])

    assert run(load(files), wanted(generated=generated)) == alone[5:]


def test_equal_numerics_ids_keep_their_promise_on_every_instruction_set(
    files: ModelFiles, alone: Told, native_library: NativeLibrary
) -> None:
    told_by_id: dict[str, list[Told]] = {load(files).description.numerics_id: [alone]}
    for name in native_library.available_isas():
        engine = load(files, environment={**os.environ, "SHARDLINE_INSTRUCTION_SET": name})
        told_by_id.setdefault(engine.description.numerics_id, []).append(run(engine, wanted()))

    assert all(told == first for first, *others in told_by_id.values() for told in others)
    assert len(told_by_id) <= 2  # matrix instructions have an id of their own
