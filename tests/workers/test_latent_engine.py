"""The engine with attention to latent vectors: on ranks, with a prefix cache, preempted, and on both kernels."""

import dataclasses
from pathlib import Path
from statistics import median

import pytest

from shardline_workers.engine import EngineRequest, Sampling, SequenceStart, TokenLogprobs
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_source import ModelFiles
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.sharded_engine import ShardedEngine
from shardline_workers.sizing.config_shape import read_model_shape
from tests.workers.engine_runs import steps
from tests.workers.thread_ranks import ThreadRanks, threaded_engine
from tests.workers.tiny_checkpoint import VOCAB_SIZE
from tests.workers.tiny_deepseek import (
    KV_RANK,
    NUM_EXPERTS,
    NUM_HEADS,
    QUERY_RANK,
    ROPE_DIM,
    random_tensors,
    write_tiny_deepseek,
)
from tests.workers.tiny_deepseek_gguf import YARN_FACTOR, YARN_SHARE, write_tiny_deepseek_gguf

BLOCK_SIZE = 32
PROMPT = tuple((7 * number * number + 3 * number + 1) % VOCAB_SIZE for number in range(290))
GREEDY = Sampling(temperature=0.0, max_tokens=12, num_logprobs=3)

Told = tuple[tuple[int, TokenLogprobs], ...]  # tokens and what was told of each


@pytest.fixture(scope="module", params=["queries in two steps", "queries in one step"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    changes: dict[str, object] = {"q_lora_rank": None} if request.param.endswith("one step") else {}
    return write_tiny_deepseek(tmp_path_factory.mktemp("deepseek"), changes=changes)


def config(files: ModelFiles, *, dtype: str = "float64", **changes: object) -> EngineConfig:
    config = EngineConfig(
        files=files,
        kernels="reference",
        dtype=dtype,
        max_model_len=512,
        max_num_seqs=8,
        max_num_batched_tokens=128,
        kv_cache_tokens=2048,
        block_size=BLOCK_SIZE,
        replicas_on_host=64,
    )
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def native(files: ModelFiles, **changes: object) -> EngineConfig:
    return config(files, dtype="auto", kernels="native", **changes)


def wanted(request_id: str = "r", prompt: tuple[int, ...] = PROMPT) -> EngineRequest:
    return EngineRequest(request_id=request_id, prompt_ids=prompt, sampling=GREEDY, sequences=(SequenceStart(),))


def run(engine: ShardedEngine, *requests: EngineRequest) -> Told:
    """Runs to the end; what was told of the request "r"."""
    for one in requests:
        engine.add(one)
    told: list[tuple[int, TokenLogprobs]] = []
    for step in steps(engine):
        if step.request_id == "r":
            told.extend(zip(step.token_ids, step.logprobs, strict=True))
    return tuple(told)


def run_once(config: EngineConfig, *requests: EngineRequest) -> Told:
    engine = load_engine(config, report=lambda _: None)
    try:
        return run(engine, *requests)
    finally:
        engine.close()


def assert_close(ours: Told, theirs: Told, *, tolerance: float) -> None:
    """The same tokens, as likely."""
    assert [token for token, _ in ours] == [token for token, _ in theirs]
    for (_, mine), (_, other) in zip(ours, theirs, strict=True):
        assert mine.chosen == pytest.approx(other.chosen, abs=tolerance)
        assert mine.top == pytest.approx(other.top, abs=tolerance)


@pytest.fixture(scope="module")
def alone(files: ModelFiles) -> Told:
    told = run_once(config(files), wanted())
    assert len({token for token, _ in told}) > 5, "a model that repeats itself shows nothing"
    return told


@pytest.mark.parametrize(
    "plan",
    [ParallelPlan(tp=2), ParallelPlan(tp=3), ParallelPlan(tp=4), ParallelPlan(tp=3, ep=3), ParallelPlan(tp=2, pp=2)],
    ids=str,
)
def test_ranks_that_share_the_heads_answer_as_one(
    files: ModelFiles, alone: Told, native_library: NativeLibrary, plan: ParallelPlan
) -> None:
    engine = threaded_engine(config(files), native_library, plan=plan)
    try:
        together = run(engine, wanted(), wanted("other", PROMPT[:50]))
    finally:
        engine.close()

    assert_close(together, alone, tolerance=1e-9)


def test_every_rank_has_the_whole_cache_and_its_own_heads(files: ModelFiles, native_library: NativeLibrary) -> None:
    changed = dataclasses.replace(config(files), plan=ParallelPlan(tp=3), ranks_on_host=3)

    with ThreadRanks(changed, native_library) as ranks:
        shapes = [rank.share.attention_shape(rank.shape.attention) for rank in ranks.ranks]
        block_bytes = {rank.block_bytes for rank in ranks.ranks}

    assert [shape.num_heads for shape in shapes] == [2, 2, 1]
    assert sum(shape.num_heads for shape in shapes) == NUM_HEADS
    assert block_bytes == {BLOCK_SIZE * 2 * (KV_RANK + ROPE_DIM) * 8}, (
        "two layers, a latent and a key with position, float64"
    )


def test_ranks_read_what_is_compressed_whole_and_of_the_rest_their_heads(
    tmp_path: Path, native_library: NativeLibrary
) -> None:
    changed = dataclasses.replace(config(write_tiny_deepseek(tmp_path)), plan=ParallelPlan(tp=3), ranks_on_host=3)
    sizes = {name: tensor.nbytes for name, tensor in random_tensors().items()}
    read_by_all = ("norm", "q_a_proj", "kv_a_proj", "mlp.gate.")

    with ThreadRanks(changed, native_library) as ranks:
        asked = [rank.asked_bytes for rank in ranks.ranks]

    assert sum(asked) == sum(
        size * (3 if any(key in name for key in read_by_all) else 1) for name, size in sizes.items()
    )


def test_a_prefix_that_is_cached_changes_nothing(files: ModelFiles, alone: Told) -> None:
    engine = load_engine(config(files), report=lambda _: None)
    run(engine, wanted("first"))
    engine.add(wanted())

    hits = engine.step().num_prefix_hits
    engine.cancel("r")

    assert hits >= 256
    assert_close(run(engine, wanted()), alone, tolerance=1e-9)
    engine.close()


def test_what_is_preempted_and_computed_anew_is_the_same(files: ModelFiles) -> None:
    """Room for three prompts of a block, and for a second block of two of them."""
    prompts = {"first": PROMPT[100:120], "second": PROMPT[:20], "r": PROMPT[200:220]}
    long = dataclasses.replace(GREEDY, max_tokens=40)
    requests = [dataclasses.replace(wanted(name, prompt), sampling=long) for name, prompt in prompts.items()]
    alone = run_once(config(files), requests[-1])
    engine = load_engine(
        config(files, max_model_len=128, kv_cache_tokens=5 * BLOCK_SIZE, enable_prefix_caching=False),
        report=lambda _: None,
    )
    for one in requests:
        engine.add(one)

    results = []
    while engine.has_work():
        results.append(engine.step())

    told = [step for result in results for step in result.sequences if step.request_id == "r"]
    assert sum(result.num_preempted for result in results) > 0
    crowded = tuple(pair for step in told for pair in zip(step.token_ids, step.logprobs, strict=True))
    assert_close(crowded, alone, tolerance=1e-9)
    engine.close()


def test_planning_counts_the_bytes_that_the_reference_keeps(files: ModelFiles) -> None:
    planned = read_model_shape(ModelFacts.read_json(files.path / "config.json")).kv

    engine = load_engine(config(files, dtype="float32", kv_cache_dtype="bfloat16"), report=lambda _: None)

    kept = int(engine.description.details["kv_cache_bytes"]) / engine.description.kv_cache_tokens
    assert kept == planned.held_bytes(1)
    engine.close()


@pytest.fixture(scope="module")
def natively(files: ModelFiles) -> Told:
    return run_once(native(files), wanted())


@pytest.mark.parametrize("query_rank", [QUERY_RANK, None])
@pytest.mark.parametrize("kv_dtype", ["auto", "int8"])
def test_answers_on_native_kernels_are_as_likely_as_the_reference_has_them(
    tmp_path: Path, query_rank: int | None, kv_dtype: str
) -> None:
    """All experts are active: else a tie of two is decided by rounding."""
    all_experts = {"num_experts_per_tok": NUM_EXPERTS, "n_group": 1, "topk_group": 1}
    files = write_tiny_deepseek(tmp_path, changes={**all_experts, "q_lora_rank": query_rank})

    told = run_once(native(files, kv_cache_dtype=kv_dtype), wanted())

    likely = likelihoods(files, tuple(token for token, _ in told))
    differences = [abs(one.chosen - exact) for (_, one), exact in zip(told, likely, strict=True)]
    typical, largest = (0.05, 0.15) if kv_dtype == "auto" else (0.1, 0.4)
    assert median(differences) < typical
    assert max(differences) < largest


@pytest.mark.parametrize("form", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("is_split", [False, True])
def test_quantised_weights_on_native_kernels_are_those_of_the_reference(
    tmp_path: Path, form: str, is_split: bool
) -> None:
    """A median: where rounding chooses another expert, a token is told otherwise."""
    files = write_tiny_deepseek_gguf(tmp_path / "m.gguf", random_tensors(), form=form, is_split=is_split)

    told = run_once(native(files), wanted())

    likely = likelihoods(files, tuple(token for token, _ in told))
    assert median(abs(one.chosen - exact) for (_, one), exact in zip(told, likely, strict=True)) < 0.1


def likelihoods(files: ModelFiles, ids: tuple[int, ...]) -> list[float]:
    """What the reference says of these tokens behind the prompt."""
    scored = dataclasses.replace(GREEDY, max_tokens=1, num_prompt_logprobs=0)
    engine = load_engine(config(files), report=lambda _: None)
    engine.add(dataclasses.replace(wanted(prompt=(*PROMPT, *ids)), sampling=scored))
    (told,) = [step.prompt_logprobs for step in steps(engine) if step.prompt_logprobs is not None]
    engine.close()
    return [one.chosen for one in told[-len(ids) :]]


def test_native_kernels_give_the_same_bits_twice(files: ModelFiles, natively: Told) -> None:
    assert run_once(native(files), wanted()) == natively


def test_on_native_kernels_a_batch_and_small_chunks_give_the_same_bits(files: ModelFiles, natively: Told) -> None:
    others = [wanted(f"other {number}", PROMPT[number : 40 + 37 * number]) for number in range(4)]

    assert run_once(native(files, max_num_batched_tokens=33), *others, wanted()) == natively


def test_ranks_on_native_kernels_are_as_near_and_give_the_same_bits_twice(
    files: ModelFiles, natively: Told, native_library: NativeLibrary
) -> None:
    runs = []
    for _ in range(2):
        engine = threaded_engine(native(files), native_library, plan=ParallelPlan(tp=4, ep=2))
        runs.append(run(engine, wanted()))
        engine.close()

    assert runs[0] == runs[1]
    assert runs[0][0][1].chosen == pytest.approx(natively[0][1].chosen, abs=0.1)


def test_native_keys_and_values_take_twice_what_planning_counts(files: ModelFiles) -> None:
    """Native code multiplies by keys and by values in two layouts, and stores the latent in both."""
    planned = read_model_shape(ModelFacts.read_json(files.path / "config.json")).kv

    engine = load_engine(native(files), report=lambda _: None)

    kept = int(engine.description.details["kv_cache_bytes"]) / engine.description.kv_cache_tokens
    assert kept == 2 * planned.held_bytes(1)
    engine.close()


@pytest.mark.parametrize("is_stretched", [False, True])
@pytest.mark.parametrize("is_split", [False, True])
def test_a_gguf_file_answers_as_the_folder(tmp_path: Path, is_split: bool, is_stretched: bool) -> None:
    yarn = {"type": "yarn", "factor": YARN_FACTOR, "original_max_position_embeddings": 64}
    stretched: dict[str, object] = {"rope_scaling": {**yarn, "mscale": YARN_SHARE, "mscale_all_dim": YARN_SHARE}}
    folder = write_tiny_deepseek(tmp_path / "folder", changes=stretched if is_stretched else {})
    file = write_tiny_deepseek_gguf(tmp_path / "m.gguf", random_tensors(), is_split=is_split, is_stretched=is_stretched)

    answers = [run_once(config(files), wanted()) for files in (folder, file)]

    assert_close(answers[1], answers[0], tolerance=1e-5)  # the file has its numbers of YaRN in float32
