"""Ranks that share every matrix give the tokens of one rank that has them all, and its logits within rounding."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from shardline_workers.collectives.shared_memory_communicator import SharedMemoryCommunicator
from shardline_workers.engine import EngineRequest, Sampling, SequenceStart, TokenLogprobs
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.files.model_source import ModelFiles
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.sharded_engine import ShardedEngine
from tests.workers.engine_runs import ADJUSTED, steps
from tests.workers.thread_ranks import threaded_engine
from tests.workers.tiny_checkpoint import VOCAB_SIZE, tiny_tensors, write_tiny_checkpoint
from tests.workers.tiny_families import TINY_FAMILIES, random_tensors, write_family_folder, write_family_gguf

SHARES = (2, 3, 4)
FAMILIES = ("llama", *TINY_FAMILIES)
PROMPT = tuple((7 * number * number + 3 * number + 1) % VOCAB_SIZE for number in range(90))
GREEDY = Sampling(temperature=0.0, max_tokens=10)
SAMPLINGS = {
    "greedy": GREEDY,
    "greedy with log-probabilities": dataclasses.replace(GREEDY, num_logprobs=20),
    "penalties and biases": dataclasses.replace(ADJUSTED, temperature=0.0, max_tokens=10),
    "penalties, biases and log-probabilities": dataclasses.replace(ADJUSTED, max_tokens=10, num_logprobs=5),
    "drawn of few": Sampling(temperature=1.3, top_k=7, seed=3, max_tokens=10),
    "drawn of few by mass": Sampling(temperature=1.3, top_k=7, top_p=0.9, min_p=0.05, seed=4, max_tokens=10),
    "few of adjusted": dataclasses.replace(ADJUSTED, top_k=5, max_tokens=10),
    "drawn by mass": Sampling(temperature=1.1, top_p=0.8, seed=5, max_tokens=10),
    "drawn above a floor": Sampling(temperature=1.1, min_p=0.1, seed=6, max_tokens=10),
    "drawn of all": Sampling(temperature=0.8, seed=7, max_tokens=10, num_logprobs=2),
    "log-probabilities of the prompt": dataclasses.replace(GREEDY, num_prompt_logprobs=3, num_logprobs=1),
}

Told = dict[str, list[tuple[int, TokenLogprobs | None]]]  # by request: tokens, and what was told of each


@pytest.fixture(scope="module", params=FAMILIES)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    folder: Path = tmp_path_factory.mktemp("model")
    if request.param == "llama":
        return write_tiny_checkpoint(folder)
    family = TINY_FAMILIES[request.param]
    return write_family_folder(folder, family, random_tensors(family))


def config(files: ModelFiles, *, kernels: str = "reference", dtype: str = "float64") -> EngineConfig:
    return EngineConfig(
        files=files,
        kernels=kernels,
        dtype=dtype,
        max_model_len=128,
        max_num_seqs=16,
        max_num_batched_tokens=64,
        kv_cache_tokens=4096,
        block_size=32,
        replicas_on_host=64,
    )


def requests() -> list[EngineRequest]:
    return [
        EngineRequest(request_id=name, prompt_ids=PROMPT[number:], sampling=sampling, sequences=(SequenceStart(),))
        for number, (name, sampling) in enumerate(SAMPLINGS.items())
    ]


def run(engine: ShardedEngine, wanted: Sequence[EngineRequest]) -> Told:
    """Runs all requests together to the end; prompts' log-probabilities come before tokens'."""
    told: Told = {}
    try:
        for one in wanted:
            engine.add(one)
        for step in steps(engine):
            answers = told.setdefault(step.request_id, [])
            answers.extend((-1, logprobs) for logprobs in step.prompt_logprobs or ())
            answers.extend(zip(step.token_ids, step.logprobs or [None] * len(step.token_ids), strict=True))
    finally:
        engine.close()
    return told


def near(ours: TokenLogprobs | None, theirs: TokenLogprobs | None, *, within: float) -> bool:
    """Whether both tell of the same tokens about the same."""
    if ours is None or theirs is None:
        return ours is theirs
    expected = dict(zip(theirs.top_ids, theirs.top, strict=True))
    told = dict(zip(ours.top_ids, ours.top, strict=True))
    common = expected.keys() & told.keys()
    # The last ones may be as likely as the next: they need not be the same.
    least = max(min(expected.values(), default=0.0), min(told.values(), default=0.0))
    return all(
        token in common and abs(told[token] - expected[token]) <= within
        for token, logprob in (expected | told).items()
        if logprob > least + within
    )


@pytest.fixture(scope="module")
def alone(files: ModelFiles) -> Told:
    return run(load_engine(config(files), report=lambda _: None), requests())


@pytest.mark.parametrize("tp", SHARES)
def test_every_kind_of_choice_is_that_of_one_rank(
    files: ModelFiles, alone: Told, native_library: NativeLibrary, tp: int
) -> None:
    together = run(threaded_engine(config(files), native_library, plan=ParallelPlan(tp=tp)), requests())

    for name, answers in alone.items():
        assert [token for token, _ in together[name]] == [token for token, _ in answers], name
        for (_, ours), (_, theirs) in zip(together[name], answers, strict=True):
            assert near(ours, theirs, within=1e-9)
            assert ours is None or theirs is None or abs(ours.chosen - theirs.chosen) < 1e-9


@pytest.mark.parametrize("tp", (2, 4))
def test_native_ranks_choose_as_one_and_give_the_same_bits_again(
    tmp_path: Path, native_library: NativeLibrary, tp: int
) -> None:
    family = TINY_FAMILIES["qwen3"]
    files = write_family_gguf(tmp_path / "m.gguf", family, random_tensors(family), form="Q8_0")
    native = config(files, kernels="native", dtype="auto")
    alone = run(load_engine(native, report=lambda _: None), requests())

    first, second = (
        run(threaded_engine(native, native_library, plan=ParallelPlan(tp=tp)), requests()) for _ in range(2)
    )

    assert first == second
    for name, answers in alone.items():
        (_, ours), (_, theirs) = first[name][0], answers[0]
        assert near(ours, theirs, within=0.1), name


@pytest.mark.model
@pytest.mark.parametrize("tp", (2, 3))
def test_nine_heads_of_a_real_model_on_native_ranks(
    smollm2: ModelFiles, native_library: NativeLibrary, tp: int
) -> None:
    told = dataclasses.replace(GREEDY, num_logprobs=20)
    wanted = EngineRequest(
        request_id="r", prompt_ids=tuple(range(1000, 1040)), sampling=told, sequences=(SequenceStart(),)
    )
    native = config(smollm2, kernels="native", dtype="auto")
    alone = run(load_engine(native, report=lambda _: None), [wanted])["r"]

    first, second = (
        run(threaded_engine(native, native_library, plan=ParallelPlan(tp=tp)), [wanted])["r"] for _ in range(2)
    )

    assert first == second
    for number, ((token, ours), (other, theirs)) in enumerate(zip(first, alone, strict=True)):
        # The inputs of quantised weights are rounded to int8: one rank is as far from float64 on this prompt, by 0.17.
        assert near(ours, theirs, within=0.5), number
        if token != other:
            break


def test_a_file_whose_blocks_a_cut_would_split_is_refused_at_start(
    tmp_path: Path, native_library: NativeLibrary
) -> None:
    family = TINY_FAMILIES["qwen3"]
    files = write_family_gguf(tmp_path / "m.gguf", family, random_tensors(family), form="Q4_K")

    with pytest.raises(ValueError, match=r"blocks of 256 weights in this file.*the nearest that works is tp=1"):
        threaded_engine(config(files), native_library, plan=ParallelPlan(tp=2))


@pytest.mark.parametrize("tp", SHARES)
def test_of_equally_likely_tokens_of_several_ranks_the_lowest_is_chosen(
    tmp_path: Path, native_library: NativeLibrary, tp: int
) -> None:
    tensors = tiny_tensors()
    tensors["lm_head.weight"] = np.tile(tensors["lm_head.weight"][:16], (VOCAB_SIZE // 16, 1))
    files = write_tiny_checkpoint(tmp_path, tensors=tensors)
    wanted = [one for one in requests() if one.sampling.temperature == 0 and not one.sampling.adjusts_logits]

    alone = run(load_engine(config(files), report=lambda _: None), wanted)
    together = run(threaded_engine(config(files), native_library, plan=ParallelPlan(tp=tp)), wanted)

    for name, answers in together.items():
        assert [token for token, _ in answers] == [token for token, _ in alone[name]]
        assert all(token < 16 for token, _ in answers)
        assert [told.top_ids for _, told in answers if told] == [told.top_ids for _, told in alone[name] if told]


@pytest.mark.parametrize("kernels", ["reference", "native"])
@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize("token_id", [3, VOCAB_SIZE - 1])
def test_a_number_that_is_none_on_any_rank_makes_the_row_unusable(
    tmp_path: Path, native_library: NativeLibrary, kernels: str, broken: float, token_id: int
) -> None:
    untied = dataclasses.replace(
        TINY_FAMILIES["qwen3"], settings={**TINY_FAMILIES["qwen3"].settings, "tie_word_embeddings": False}
    )
    tensors = dict(random_tensors(untied))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    tensors["lm_head.weight"][token_id] = broken
    files = write_family_folder(tmp_path, untied, tensors)
    dtype = "float64" if kernels == "reference" else "auto"
    engine = threaded_engine(config(files, kernels=kernels, dtype=dtype), native_library, plan=ParallelPlan(tp=2))
    for one in requests():
        engine.add(one)

    errors = {step.request_id: step.error for step in steps(engine) if step.error}
    engine.close()

    assert errors.keys() == SAMPLINGS.keys()
    assert all("NaN or infinite" in error for error in errors.values())


@pytest.mark.parametrize("tp", (2, 3))
def test_groups_that_the_host_has_to_call_give_the_same_bits(
    tmp_path: Path, native_library: NativeLibrary, monkeypatch: pytest.MonkeyPatch, tp: int
) -> None:
    family = TINY_FAMILIES["gemma3"]
    files = write_family_gguf(tmp_path / "m.gguf", family, random_tensors(family), form="Q8_0")
    native = config(files, kernels="native", dtype="auto")
    by_native_code = run(threaded_engine(native, native_library, plan=ParallelPlan(tp=tp)), requests())

    monkeypatch.setattr(SharedMemoryCommunicator, "native_ranks", None)
    by_the_host = run(threaded_engine(native, native_library, plan=ParallelPlan(tp=tp)), requests())

    assert by_the_host == by_native_code
