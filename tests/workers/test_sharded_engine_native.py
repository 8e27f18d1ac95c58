"""The engine on native kernels: the same bits whatever happens around a request, on any number of threads and any
instruction set, in every format; and near what the float64 reference says of the same weights.

Log-probabilities are compared beside tokens: they show the last bit of the logits.
"""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from shardline_workers.engine import EngineRequest, Sampling, SequenceStart, TokenLogprobs
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.files.model_source import ModelFiles
from shardline_workers.kernels.native_kernels import NUMERICS_VERSION
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.sharded_engine import ShardedEngine
from tests.workers import engine_runs
from tests.workers.engine_runs import steps
from tests.workers.quantised_gguf import FORMATS, write_quantised_gguf
from tests.workers.tiny_checkpoint import VOCAB_SIZE

GREEDY = Sampling(temperature=0.0, max_tokens=12, num_logprobs=3)
DRAWN = Sampling(temperature=1.2, top_k=40, top_p=0.95, min_p=0.001, seed=77, max_tokens=12, num_logprobs=3)
ADJUSTED = dataclasses.replace(engine_runs.ADJUSTED, max_tokens=12, min_tokens=12, num_logprobs=3)
# Longer than one split of attention, 256 keys.
PROMPT = tuple((7 * number * number + 3 * number + 1) % VOCAB_SIZE for number in range(290))

Told = tuple[tuple[int, TokenLogprobs], ...]  # tokens and what was told of each


@dataclass(frozen=True, slots=True)
class Model:
    """What an engine is made of here."""

    files: ModelFiles
    kv_cache_dtype: str = "auto"


@pytest.fixture(scope="module", params=["Q4_1", "Q8_0 with int8 KV", "BF16"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, native_library: NativeLibrary
) -> Model:
    form, _, int8 = request.param.partition(" ")
    files = write_quantised_gguf(tmp_path_factory.mktemp("native") / "m.gguf", form)
    return Model(files, "int8" if int8 else "auto")


@pytest.fixture(scope="module", params=[GREEDY, DRAWN, ADJUSTED], ids=["greedy", "drawn", "adjusted"])
def sampling(request: pytest.FixtureRequest) -> Sampling:
    chosen: Sampling = request.param
    return chosen


@pytest.fixture(scope="module")
def alone(model: Model, sampling: Sampling) -> Told:
    told = run(load(model), wanted(sampling))
    assert len(told) == sampling.max_tokens
    assert len({token for token, _ in told}) > 5, "a model that repeats itself shows nothing"
    return told


def load(model: Model, *, environment: Mapping[str, str] = os.environ, **changes: object) -> ShardedEngine:
    config = EngineConfig(
        files=model.files,
        kv_cache_dtype=model.kv_cache_dtype,
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


def wanted(
    sampling: Sampling, *, request_id: str = "r", prompt: tuple[int, ...] = PROMPT, generated: tuple[int, ...] = ()
) -> EngineRequest:
    return EngineRequest(
        request_id=request_id,
        prompt_ids=prompt,
        sampling=sampling,
        sequences=(SequenceStart(generated_ids=generated),),
    )


def others(sampling: Sampling, count: int) -> list[EngineRequest]:
    """Prompts of very different lengths."""
    return [
        wanted(sampling, request_id=f"other {number}", prompt=PROMPT[number : number + 1 + 37 * number % 131])
        for number in range(count)
    ]


def run(engine: ShardedEngine, *requests: EngineRequest) -> Told:
    """Runs to the end; what was told of the request "r"."""
    for one in requests:
        engine.add(one)
    told: list[tuple[int, TokenLogprobs]] = []
    for step in steps(engine):
        if step.request_id == "r":
            told.extend(zip(step.token_ids, step.logprobs, strict=True))
    return tuple(told)


class TestTheSameBitsWhateverHappens:
    @pytest.mark.parametrize("count", [1, 4, 16, 63])
    def test_in_a_batch(self, model: Model, sampling: Sampling, alone: Told, count: int) -> None:
        engine = load(model, max_num_seqs=64, kv_cache_tokens=16384)

        assert run(engine, *others(sampling, count), wanted(sampling)) == alone

    @pytest.mark.parametrize("budget", [8, 33, 100])
    def test_in_chunks(self, model: Model, sampling: Sampling, alone: Told, budget: int) -> None:
        engine = load(model, max_num_batched_tokens=budget)

        assert run(engine, *others(sampling, 5), wanted(sampling)) == alone

    def test_after_preemption(self, model: Model, sampling: Sampling, alone: Told) -> None:
        longer = dataclasses.replace(sampling, max_tokens=60)
        engine = load(model, kv_cache_tokens=512, enable_prefix_caching=False)
        for one in [*others(longer, 5), wanted(sampling)]:
            engine.add(one)

        told: list[tuple[int, TokenLogprobs]] = []
        preempted = 0
        while engine.has_work():
            result = engine.step()
            preempted += result.num_preempted
            for step in result.sequences:
                if step.request_id == "r":
                    told.extend(zip(step.token_ids, step.logprobs, strict=True))

        assert preempted > 0
        assert tuple(told) == alone

    def test_with_a_prefix_hit(self, model: Model, sampling: Sampling, alone: Told) -> None:
        engine = load(model)
        run(engine, wanted(sampling, request_id="before"))

        engine.add(wanted(sampling))
        first = engine.step()
        told = tuple(zip(first.sequences[0].token_ids, first.sequences[0].logprobs, strict=True)) + run(engine)

        assert first.num_prefill_tokens == len(PROMPT) - 288
        assert told == alone

    @pytest.mark.parametrize("resumed_after", [1, 7])
    def test_resumed_on_another_replica(
        self, model: Model, sampling: Sampling, alone: Told, resumed_after: int
    ) -> None:
        generated = tuple(token for token, _ in alone[:resumed_after])

        told = run(load(model), *others(sampling, 3), wanted(sampling, generated=generated))

        assert told == alone[resumed_after:]

    def test_on_all_threads_of_the_host(self, model: Model, sampling: Sampling, alone: Told) -> None:
        engine = load(model, replicas_on_host=1)

        assert run(engine, *others(sampling, 3), wanted(sampling)) == alone


def test_every_instruction_set_of_this_machine_gives_the_same_bits(
    model: Model, sampling: Sampling, alone: Told, native_library: NativeLibrary
) -> None:
    available = list(native_library.available_isas())
    assert "portable" in available

    told_by_id: dict[str, list[Told]] = {}
    for name in available:
        environment = {**os.environ, "SHARDLINE_INSTRUCTION_SET": name}
        engine = load(model, environment=environment)
        assert engine.description.details["instruction_set"] == name
        told = run(engine, *others(sampling, 2), wanted(sampling))
        told_by_id.setdefault(engine.description.numerics_id, []).append(told)

    assert all(told == first for first, *others_told in told_by_id.values() for told in others_told)
    assert alone in [first for first, *_ in told_by_id.values()]
    sums_apart = "amx" in available and engine.description.details.get("bfloat16_products") == "amx"
    assert len(told_by_id) == (2 if sums_apart else 1)


@pytest.mark.parametrize(("form", "kv_cache_dtype"), [*((form, "auto") for form in FORMATS), ("BF16", "int8")])
def test_log_probabilities_are_those_of_the_reference_within_the_formats_rounding(
    tmp_path: Path, native_library: NativeLibrary, form: str, kv_cache_dtype: str
) -> None:
    """The reference goes the same way: it is forced along our tokens."""
    model = Model(write_quantised_gguf(tmp_path / "m.gguf", form, gain=1.0), kv_cache_dtype)
    native = run(load(model), wanted(GREEDY))
    reference = load(model, kernels="reference", dtype="float64")

    differences = []
    for number in range(len(native)):
        generated = tuple(token for token, _ in native[:number])
        one_more = dataclasses.replace(GREEDY, max_tokens=number + 1, num_logprobs=20)
        ((_, oracle),) = run(reference, wanted(one_more, generated=generated))
        token_to_logprob = dict(zip(oracle.top_ids, oracle.top, strict=True))
        ours = native[number][1]
        differences += [
            abs(value - token_to_logprob[token]) for token, value in zip(ours.top_ids, ours.top, strict=True)
        ]

    # bfloat16 inputs round by 2^-9; int8 inputs by 1/254 of their block's largest.
    assert max(differences) < (0.12 if form in ("F16", "BF16", "F32") else 0.3)


@pytest.mark.parametrize("form", FORMATS)
def test_a_second_start_finds_the_packed_weights_and_gives_the_same_bits(
    tmp_path: Path, native_library: NativeLibrary, form: str
) -> None:
    model = Model(write_quantised_gguf(tmp_path / "m.gguf", form, seed=2))
    first = run(load(model), wanted(GREEDY))

    assert run(load(model), wanted(GREEDY)) == first


@pytest.mark.parametrize("kv_cache_dtype", ["auto", "int8"])
def test_heads_that_do_not_fill_panels_compute_too(
    tmp_path: Path, native_library: NativeLibrary, kv_cache_dtype: str
) -> None:
    model = Model(write_quantised_gguf(tmp_path / "m.gguf", "BF16", head_dim=16, gain=1.0), kv_cache_dtype)
    reference = run(load(model, kernels="reference", dtype="float64"), wanted(GREEDY))

    native = run(load(model), wanted(GREEDY))

    assert native[0][1].top == pytest.approx(reference[0][1].top, abs=0.06)


def test_what_runs_is_told(model: Model, native_library: NativeLibrary) -> None:
    lines: list[str] = []
    config = EngineConfig(files=model.files, kv_cache_tokens=1024, replicas_on_host=64)

    description = load_engine(config, report=lines.append).description

    told = "\n".join(lines)
    assert f"in its own format on cpu: native, {native_library.best_isa()} kernels, 1 threads" in told
    assert description.details["kernels"] == f"native-{NUMERICS_VERSION}"
    assert description.details["kv_dtype"] == "bfloat16"
    assert description.details["batch_invariant"] == "yes"
    assert description.details["block_size"] == "64"


def test_int8_keys_and_values_take_half_the_memory_and_are_told(model: Model, native_library: NativeLibrary) -> None:
    lines: list[str] = []
    wide = EngineConfig(files=model.files, kv_cache_tokens=1 << 17, replicas_on_host=64)
    narrow = dataclasses.replace(wide, kv_cache_dtype="int8")

    told = [load_engine(config, report=lines.append).description.details["kv_dtype"] for config in (wide, narrow)]

    assert told == ["bfloat16", "int8"]
    # Two layers of one head of 32 dimensions: 2 · 2 · 64 bytes a token, or 2 · (34 + 32 + 4).
    assert [line[:49] for line in lines if line.startswith("KV cache: ")] == [
        "KV cache: 131072 tokens (32 MiB of bfloat16), eno",
        "KV cache: 131072 tokens (18 MiB of int8), enough ",
    ]


def test_blocks_of_another_size_are_other_numerics(model: Model) -> None:
    """Sums of attention are made block by block."""
    small, large = (load(model, block_size=size).description for size in (32, 64))

    assert small.numerics_id != large.numerics_id


def test_without_a_compiler_the_reference_serves_and_one_line_warns(tmp_path: Path, model: Model) -> None:
    lines: list[str] = []
    config = EngineConfig(files=model.files, kv_cache_tokens=1024, replicas_on_host=64)

    engine = load_engine(config, report=lines.append, environment={"PATH": "", "XDG_CACHE_HOME": str(tmp_path)})

    assert engine.description.details["kernels"] == "reference"
    assert len(run(engine, wanted(GREEDY))) == GREEDY.max_tokens
    assert sum("no C++ compiler was found" in line for line in lines) == 1
