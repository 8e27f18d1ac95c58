"""Stages with steps under way in each, and groups that step together, give the tokens of one rank."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from shardline_workers.engine import EngineRequest, Sampling, SequenceStart
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.files.model_source import ModelFiles
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.sharded_engine import ShardedEngine
from tests.workers.engine_runs import ADJUSTED, DRAWN, GREEDY
from tests.workers.thread_ranks import threaded_engine
from tests.workers.tiny_checkpoint import VOCAB_SIZE, write_tiny_checkpoint
from tests.workers.tiny_families import GEMMA3, random_tensors, write_family_folder

BLOCK = 8
SHAPES = {
    "llama": [
        ParallelPlan(pp=2),
        ParallelPlan(dp=2),
        ParallelPlan(tp=2, pp=2),
        ParallelPlan(pp=2, dp=2),
    ],
    "gemma3": [ParallelPlan(pp=3), ParallelPlan(tp=3, dp=2), ParallelPlan(tp=2, pp=3)],
}
SHAPES_OF_FAMILIES = [(family, plan) for family, plans in SHAPES.items() for plan in plans]
SYSTEM_PROMPT = tuple((5 * number * number + number) % VOCAB_SIZE for number in range(3 * BLOCK))

Tokens = dict[tuple[str, int], tuple[int, ...]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFiles]:
    folder: Path = tmp_path_factory.mktemp("models")
    return {
        "llama": write_tiny_checkpoint(folder / "llama"),
        "gemma3": write_family_folder(folder / "gemma3", GEMMA3, random_tensors(GEMMA3)),
    }


def config(files: ModelFiles, *, kv_cache_tokens: int = 4096, max_num_seqs: int = 8) -> EngineConfig:
    return EngineConfig(
        files=files,
        kernels="reference",
        dtype="float64",
        max_model_len=128,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=24,
        kv_cache_tokens=kv_cache_tokens,
        block_size=BLOCK,
        replicas_on_host=64,
    )


def a_request(
    name: str, sampling: Sampling, *, own: int, sequences: Sequence[SequenceStart] = (SequenceStart(),)
) -> EngineRequest:
    """All begin with the same tokens; `own` more follow."""
    tail = tuple((len(name) + 11 * number * number + own) % VOCAB_SIZE for number in range(own))
    return EngineRequest(
        request_id=name, prompt_ids=SYSTEM_PROMPT + tail, sampling=sampling, sequences=tuple(sequences)
    )


def many_requests() -> list[EngineRequest]:
    """Short and long, one sequence and several, new and resumed, of all kinds of sampling."""
    short = dataclasses.replace(GREEDY, max_tokens=6)
    resumed = SequenceStart(generated_ids=(4, 9, 2, 7))
    return [
        a_request("long prompt", GREEDY, own=70),
        a_request("short", short, own=1),
        a_request("short and drawn", dataclasses.replace(DRAWN, max_tokens=9), own=2),
        a_request("siblings", dataclasses.replace(DRAWN, max_tokens=12), own=9, sequences=[SequenceStart()] * 3),
        a_request("resumed", ADJUSTED, own=5, sequences=[resumed, SequenceStart(finished=True), SequenceStart()]),
        a_request("adjusted", ADJUSTED, own=17),
        a_request("at its end", short, own=4, sequences=[SequenceStart(generated_ids=(1,) * 6)]),
        *(a_request(f"grows {number}", dataclasses.replace(GREEDY, max_tokens=44), own=number) for number in range(4)),
        a_request("scored", dataclasses.replace(GREEDY, num_prompt_logprobs=1, max_tokens=5), own=12),
    ]


@dataclasses.dataclass(slots=True)
class Outcome:
    """What an engine told in some steps."""

    tokens: Tokens = dataclasses.field(default_factory=dict)
    num_preempted: int = 0
    num_prefix_hits: int = 0

    def step(self, engine: ShardedEngine) -> None:
        result = engine.step()
        engine.check_integrity()
        self.num_preempted += result.num_preempted
        self.num_prefix_hits += result.num_prefix_hits
        for step in result.sequences:
            assert step.error is None
            key = step.request_id, step.sequence
            self.tokens[key] = self.tokens.get(key, ()) + step.token_ids


def run(engine: ShardedEngine, wanted: Sequence[EngineRequest], *, at_once: int = 3) -> Outcome:
    """Runs all to the end, some more of them with each step; checks the books all the time."""
    todo, outcome = list(wanted), Outcome()
    for _ in range(2000):
        for request in todo[:at_once]:
            engine.add(request)
        del todo[:at_once]
        outcome.step(engine)
        if not todo and not engine.has_work():
            return outcome
    raise AssertionError("the engine does not come to an end")


def run_alone(config: EngineConfig, wanted: Sequence[EngineRequest]) -> Tokens:
    """Each request by itself, in one rank."""
    engine, outputs = load_engine(config, report=lambda _: None), Tokens()
    for request in wanted:
        outputs |= run(engine, [request]).tokens
    engine.close()
    return outputs


@pytest.fixture(scope="module")
def alone(models: dict[str, ModelFiles]) -> dict[str, Tokens]:
    return {family: run_alone(config(files), many_requests()) for family, files in models.items()}


@pytest.mark.parametrize(("family", "plan"), SHAPES_OF_FAMILIES, ids=str)
def test_many_requests_get_the_tokens_of_one_rank_also_where_blocks_run_out(
    models: dict[str, ModelFiles],
    alone: dict[str, Tokens],
    native_library: NativeLibrary,
    family: str,
    plan: ParallelPlan,
) -> None:
    scarce = config(models[family], kv_cache_tokens=17 * BLOCK, max_num_seqs=5)
    engine = threaded_engine(scarce, native_library, plan=plan)

    first = run(engine, many_requests())
    again = run(engine, [dataclasses.replace(one, generation="again") for one in many_requests()], at_once=8)

    free_tokens = engine.capacity().free_tokens
    engine.close()
    assert first.tokens == again.tokens == alone[family]
    assert first.num_preempted + again.num_preempted > 0
    assert again.num_prefix_hits >= len(SYSTEM_PROMPT)
    assert free_tokens == scarce.kv_cache_tokens


@pytest.mark.parametrize("plan", [ParallelPlan(pp=3), ParallelPlan(pp=2, dp=2)], ids=str)
def test_stages_on_native_code_give_its_tokens_to_the_bit(
    models: dict[str, ModelFiles], native_library: NativeLibrary, plan: ParallelPlan
) -> None:
    native = dataclasses.replace(config(models["gemma3"]), kernels="native", dtype="auto", block_size=32)
    expected = run_alone(native, many_requests())
    engine = threaded_engine(native, native_library, plan=plan)

    outcome = run(engine, many_requests())

    engine.close()
    assert outcome.tokens == expected


@pytest.mark.parametrize("plan", [ParallelPlan(pp=2), ParallelPlan(pp=2, dp=2)], ids=str)
def test_what_is_cancelled_or_stopped_under_way_disturbs_nobody(
    models: dict[str, ModelFiles], alone: dict[str, Tokens], native_library: NativeLibrary, plan: ParallelPlan
) -> None:
    engine = threaded_engine(config(models["llama"]), native_library, plan=plan)
    for request in many_requests():
        engine.add(request)
    outcome = Outcome()

    for number in range(2000):
        if not engine.has_work():
            break
        if number == 12:
            engine.cancel("resumed")
            engine.stop_sequence("siblings", 1)
            engine.add(dataclasses.replace(many_requests()[4], request_id="successor"))
        outcome.step(engine)

    free_tokens = engine.capacity().free_tokens
    engine.close()
    tokens, expected = outcome.tokens, alone["llama"]
    successors = {("resumed", number): tokens.pop(("successor", number)) for number in (0, 2)}
    assert successors == {key: expected[key] for key in successors}
    cut = {("siblings", 1), *successors}
    assert {key: told for key, told in tokens.items() if key not in cut} == {
        key: told for key, told in expected.items() if key not in cut
    }
    for key in cut:
        assert 0 < len(tokens[key]) < len(expected[key]), key
        assert tokens[key] == expected[key][: len(tokens[key])]
    assert free_tokens == config(models["llama"]).kv_cache_tokens
