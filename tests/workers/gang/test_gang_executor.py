"""Engines on real rank processes: one pool of them, made into one shape after the other, gives the one-rank tokens."""

import dataclasses
import os
import threading
from collections.abc import Iterator

import pytest
import torch

from shardline_workers.engine_loading import load_engine
from shardline_workers.files.model_source import ModelFiles
from shardline_workers.gang import gang
from shardline_workers.gang.rank_pool import RankPool
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.parallel.parallel_plan import ParallelPlan
from tests.workers.engine_runs import ADJUSTED, DRAWN, GREEDY, others, request, run
from tests.workers.gang.tiny_gangs import HASTY, tiny_config
from tests.workers.tiny_checkpoint import write_tiny_checkpoint

pytestmark = pytest.mark.process

SHAPES = (
    ParallelPlan(tp=2),
    ParallelPlan(pp=2),
    ParallelPlan(tp=2, pp=2),
    ParallelPlan(dp=2),
    ParallelPlan(pp=2, dp=2),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def pool(native_library: NativeLibrary) -> Iterator[RankPool]:
    """Three rank processes: with this one, four ranks."""
    pool = RankPool(limits=HASTY, report=lambda _: None)
    pool.start_children(3, environment=os.environ)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def one_rank(files: ModelFiles) -> dict[tuple[str, int], tuple[int, ...]]:
    torch.set_num_threads(1)
    engine = load_engine(tiny_config(files, plan=ParallelPlan()), report=lambda _: None)
    return run(engine, request(GREEDY), request(ADJUSTED, request_id="a"), *others(DRAWN))


@pytest.mark.parametrize("plan", SHAPES, ids=str)
def test_a_pool_that_is_made_into_any_shape_gives_the_tokens_of_one_rank(
    pool: RankPool, files: ModelFiles, one_rank: dict[tuple[str, int], tuple[int, ...]], plan: ParallelPlan
) -> None:
    engine = load_engine(tiny_config(files, plan=plan), report=lambda _: None, pool=pool)

    told = run(engine, request(GREEDY), request(ADJUSTED, request_id="a"), *others(DRAWN))
    engine.close()

    assert told == one_rank


def test_ranks_that_had_nothing_to_do_for_longer_than_a_silence_may_last_compute_on(
    pool: RankPool, files: ModelFiles, one_rank: dict[tuple[str, int], tuple[int, ...]]
) -> None:
    engine = load_engine(tiny_config(files, plan=ParallelPlan(tp=2)), report=lambda _: None, pool=pool)

    threading.Event().wait(1.5 * HASTY.silence_s)
    told = run(engine, request(GREEDY))
    engine.close()

    assert told == {("r", 0): one_rank["r", 0]}


def test_the_first_rank_of_every_stage_tells_how_long_it_computed(pool: RankPool, files: ModelFiles) -> None:
    engine = load_engine(tiny_config(files, plan=ParallelPlan(pp=2, tp=2)), report=lambda _: None, pool=pool)

    engine.add(request(GREEDY))
    step = engine.step()
    engine.close()

    assert [times.stage for times in step.stage_times] == [0, 1]
    assert all(times.busy_s > 0 for times in step.stage_times)


def test_a_rank_that_cannot_read_the_model_is_named_and_the_pool_goes_on(
    pool: RankPool,
    files: ModelFiles,
    one_rank: dict[tuple[str, int], tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def elsewhere(config: object, hosts: object, rank: int) -> object:
        there = tiny_config(files, plan=ParallelPlan(pp=2))
        missing = dataclasses.replace(files, path=files.path / "gone")
        return there if rank == 0 else dataclasses.replace(there, files=missing)

    monkeypatch.setattr(gang, "_of_rank", elsewhere)
    with pytest.raises(ValueError, match=r"^rank 1 \(process \d+ on .*gone"):
        load_engine(tiny_config(files, plan=ParallelPlan(pp=2)), report=lambda _: None, pool=pool)
    monkeypatch.undo()

    engine = load_engine(tiny_config(files, plan=ParallelPlan(pp=2)), report=lambda _: None, pool=pool)
    told = run(engine, request(GREEDY))
    engine.close()
    assert told == {("r", 0): one_rank["r", 0]}


@pytest.mark.model
def test_the_real_model_in_two_native_stages_gives_the_tokens_of_one_and_tensor_parallel_ranks_repeat_theirs(
    pool: RankPool, smollm2: ModelFiles
) -> None:
    prompt = tuple(range(1000, 1040))

    def told(plan: ParallelPlan) -> tuple[int, ...]:
        config = tiny_config(smollm2, plan=plan, kernels="native")
        engine = load_engine(config, report=lambda _: None, pool=pool)
        (tokens,) = run(engine, request(GREEDY, prompt=prompt)).values()
        engine.close()
        return tokens

    assert told(ParallelPlan(pp=2)) == told(ParallelPlan())
    assert told(ParallelPlan(tp=2)) == told(ParallelPlan(tp=2))
