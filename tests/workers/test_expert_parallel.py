"""Experts on several ranks, in every shape: the tokens of one rank that has them all, and its log-probabilities."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from shardline_workers.engine import EngineRequest, Sampling, SequenceStart, TokenLogprobs
from shardline_workers.engine_config import EngineConfig
from shardline_workers.files.model_source import ModelFiles
from shardline_workers.gang.step_executor import GroupSteps
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.parallel.expert_placement import PlacementWish
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.scheduling.scheduler import Scheduler
from tests.workers import tiny_families
from tests.workers.thread_ranks import ThreadRanks
from tests.workers.tiny_checkpoint import VOCAB_SIZE

MIXTRAL = dataclasses.replace(
    tiny_families.MIXTRAL, settings={**tiny_families.MIXTRAL.settings, "num_experts_per_tok": 3}
)
QWEN3_MOE = dataclasses.replace(
    tiny_families.QWEN3_MOE, settings={**tiny_families.QWEN3_MOE.settings, "num_experts": 7}, num_experts=7
)
MODELS: Mapping[str, tiny_families.TinyFamily] = {"mixtral of 5": MIXTRAL, "qwen3-moe of 7": QWEN3_MOE}
SAMPLING = Sampling(temperature=0.0, max_tokens=6, num_logprobs=10)
PROMPTS = [tuple((5 * number * number + start) % VOCAB_SIZE for number in range(start, 40)) for start in (3, 20, 38)]
PLANS = [
    ParallelPlan(tp=2),
    ParallelPlan(tp=2, ep=2),
    ParallelPlan(tp=3, ep=3),
    ParallelPlan(tp=4, ep=2),
    ParallelPlan(tp=4, ep=4),
    ParallelPlan(dp=2),
    ParallelPlan(dp=2, ep=2),
    ParallelPlan(dp=3, ep=3),
    ParallelPlan(tp=2, dp=2),
    ParallelPlan(tp=2, dp=2, ep=2),
    ParallelPlan(tp=2, dp=2, ep=4),
    ParallelPlan(dp=2, pp=2, ep=2),
]

Told = dict[str, list[tuple[int, TokenLogprobs]]]  # by request


@pytest.fixture(scope="module", params=MODELS)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    folder: Path = tmp_path_factory.mktemp("model")
    family = MODELS[request.param]
    return tiny_families.write_family_folder(folder, family, tiny_families.random_tensors(family))


@pytest.fixture(scope="module")
def alone(files: ModelFiles, native_library: NativeLibrary) -> Told:
    return run(config(files), native_library)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_tokens_are_those_of_one_rank(
    files: ModelFiles, alone: Told, native_library: NativeLibrary, plan: ParallelPlan
) -> None:
    assert_equal(run(config(files, plan=plan), native_library), alone)


@pytest.mark.parametrize(
    "plan", [ParallelPlan(tp=2, ep=2), ParallelPlan(dp=3, ep=3), ParallelPlan(tp=2, dp=2, ep=2)], ids=str
)
def test_copies_of_experts_change_nothing(
    files: ModelFiles, alone: Told, native_library: NativeLibrary, plan: ParallelPlan
) -> None:
    wish = PlacementWish(num_redundant=3)

    assert_equal(run(config(files, plan=plan, expert_placement=wish), native_library), alone)


@pytest.mark.parametrize(
    "plan",
    [ParallelPlan(tp=2), ParallelPlan(tp=2, ep=2), ParallelPlan(dp=2, ep=2), ParallelPlan(tp=2, dp=2, ep=2)],
    ids=str,
)
def test_native_kernels_give_the_same_bits_again_and_nearly_those_of_one_rank(
    files: ModelFiles, alone: Told, native_library: NativeLibrary, plan: ParallelPlan
) -> None:
    wish = PlacementWish(num_redundant=1 if plan.ep > 1 else 0)
    native = config(files, plan=plan, expert_placement=wish, kernels="native", dtype="auto", block_size=32)

    first, again = (run(native, native_library) for _ in range(2))

    assert first == again
    for request_id, answers in alone.items():
        (_, ours), (_, theirs) = first[request_id][0], answers[0]
        expected = dict(zip(theirs.top_ids, theirs.top, strict=True))
        near = [
            (value, expected[token]) for token, value in zip(ours.top_ids, ours.top, strict=True) if token in expected
        ]
        assert len(near) > len(expected) / 2
        assert all(value == pytest.approx(reference, abs=0.1) for value, reference in near)


def test_a_rank_reads_its_own_experts_and_no_other(files: ModelFiles, native_library: NativeLibrary) -> None:
    plan = ParallelPlan(dp=2, ep=2)

    with (
        ThreadRanks(config(files), native_library) as whole,
        ThreadRanks(config(files, plan=plan), native_library) as parts,
    ):
        (all_bytes,) = [rank.asked_bytes for rank in whole.ranks]
        shape = whole.ranks[0].shape
        asked = [rank.asked_bytes for rank in parts.ranks]
        counts = [sum(len(rank.share.experts(layer)) for layer in rank.share.layers) for rank in parts.ranks]

    assert shape.experts is not None
    an_expert = 3 * shape.hidden_size * shape.experts.width * 4  # bytes in this file
    num_experts = shape.num_layers * shape.experts.num_experts
    assert sum(counts) == num_experts
    assert asked == [all_bytes - (num_experts - count) * an_expert for count in counts]


def test_more_copies_than_parts_have_room_for_are_refused(files: ModelFiles, native_library: NativeLibrary) -> None:
    plan = ParallelPlan(tp=2, ep=2)

    with pytest.raises(ValueError, match=r"8 redundant copies were asked for; . experts on 2 parts have room for 0 to"):
        ThreadRanks(config(files, plan=plan, expert_placement=PlacementWish(num_redundant=8)), native_library)


def config(files: ModelFiles, *, plan: ParallelPlan | None = None, **changes: object) -> EngineConfig:
    plan = plan or ParallelPlan()
    config = EngineConfig(
        files=files,
        kernels="reference",
        dtype="float64",
        max_model_len=64,
        max_num_seqs=4,
        max_num_batched_tokens=32,
        kv_cache_tokens=512,
        block_size=16,
        plan=plan,
        ranks_on_host=plan.num_ranks,
        replicas_on_host=64,
    )
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def run(config: EngineConfig, library: NativeLibrary) -> Told:
    """All prompts to the end, dealt to the data-parallel groups in turn; groups that are done go on with dummies."""
    told: Told = {}
    with ThreadRanks(config, library) as ranks:
        groups = [Scheduler(ranks.limits) for _ in range(config.plan.dp)]
        for number, prompt in enumerate(PROMPTS):
            request = EngineRequest(
                request_id=str(number), prompt_ids=prompt, sampling=SAMPLING, sequences=(SequenceStart(),)
            )
            groups[number % len(groups)].add(request)
        while any(group.has_work() for group in groups):
            plans = tuple(group.schedule() for group in groups)
            ranks.submit(GroupSteps(plans=plans), num_threads=1)
            for group, plan, sampled in zip(groups, plans, ranks.collect().sampled, strict=True):
                for step in group.complete(plan, sampled):
                    told.setdefault(step.request_id, []).extend(zip(step.token_ids, step.logprobs, strict=True))
    return told


def assert_equal(ours: Told, theirs: Told) -> None:
    assert ours.keys() == theirs.keys()
    for request_id, answers in theirs.items():
        assert [token for token, _ in ours[request_id]] == [token for token, _ in answers]
        for (_, our_logprobs), (_, their_logprobs) in zip(ours[request_id], answers, strict=True):
            assert our_logprobs.top_ids == their_logprobs.top_ids
            assert our_logprobs.top == pytest.approx(their_logprobs.top, abs=1e-9)
