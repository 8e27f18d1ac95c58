"""Part of `benchmarks.parallel`: how much of the time the stages of a pipeline stand still.

SmolLM2-135M on two stages, rank processes of one host, one thread each, 16 sequences in decode. With 1, 2, 3 and 4
steps under way at once, by turns on the same ranks: tokens a second, the time from step to step, and the share of the
time in which each stage did not compute. With one step under way a stage waits while the other computes; with two, one
waits for the other only where they take differently long, or where the leader schedules; more than there are stages
make smaller batches and can only fill what little is left.
"""

import os
import random
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from benchmarks.random_prompts import random_prompt
from shardline_cluster.replica.model_location import default_cache_folder
from shardline_workers.engine import EngineDescription, EngineRequest, Sampling, StepResult
from shardline_workers.engine_config import EngineConfig
from shardline_workers.files.model_source import resolve_model
from shardline_workers.gang.gang_loading import LoadedGang, load_gang
from shardline_workers.gang.rank_pool import RankPool
from shardline_workers.load_times import LoadTimes
from shardline_workers.memory_budget import read_host_resources
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.ranks.thread_governor import ThreadGovernor
from shardline_workers.scheduling.scheduler_groups import SchedulerGroups
from shardline_workers.sharded_engine import ShardedEngine

MODEL = "smollm2:135m"
STAGES = 2
IN_FLIGHT = (1, 2, 3, 4)
NUM_SEQUENCES = 16
_PROMPT_TOKENS = 32
_WARM_UP_STEPS = 8  # with all sequences in decode, in each turn


@dataclass(slots=True)
class _Figures:
    """Of one number of steps under way, all turns together."""

    active_s: float = 0.0
    num_tokens: int = 0
    steps_s: list[float] = field(default_factory=list)
    busy_s: list[float] = field(default_factory=lambda: [0.0] * STAGES)

    def take(self, result: StepResult) -> None:
        self.active_s += result.active_s
        self.num_tokens += result.num_decode_tokens
        self.steps_s.append(result.active_s)
        for times in result.stage_times:
            self.busy_s[times.stage] += times.busy_s

    def told(self) -> dict[str, object]:
        return {
            "num_steps": len(self.steps_s),
            "tokens_per_s": round(self.num_tokens / self.active_s, 1),
            "step_ms_p50": round(1e3 * statistics.median(self.steps_s), 3),
            "bubble_share_by_stage": [round(1 - busy_s / self.active_s, 3) for busy_s in self.busy_s],
        }


def pipeline_bubble(*, is_short: bool) -> dict[str, object]:
    """The part's configuration and figures; the short form takes a few seconds and says nothing."""
    turns, tokens = (1, 24) if is_short else (6, 96)
    figures = {in_flight: _Figures() for in_flight in IN_FLIGHT}
    with _gang() as gang:
        weights_bytes = [share.weights_bytes for share in gang.shares]
        for turn in range(turns):
            for in_flight in IN_FLIGHT:
                for result in _decode_steps(_engine(gang, in_flight), f"{turn}-{in_flight}", tokens=tokens):
                    figures[in_flight].take(result)
    return {
        "configuration": {
            "model": MODEL,
            "plan": str(ParallelPlan(pp=STAGES)),
            "num_sequences": NUM_SEQUENCES,
            "tokens": tokens,
            "turns": turns,
            "threads_a_rank": 1,
        },
        "weights_bytes_by_stage": weights_bytes,
        "steps_under_way": {str(in_flight): told.told() for in_flight, told in figures.items()},
    }


@contextmanager
def _gang() -> Iterator[LoadedGang]:
    """The ranks, this process being the first."""

    def tell_nobody(_: str) -> None:
        return

    config = EngineConfig(
        files=resolve_model(MODEL, cache_folder=default_cache_folder(), report=tell_nobody),
        max_model_len=512,
        max_num_seqs=NUM_SEQUENCES,
        kv_cache_tokens=NUM_SEQUENCES * 256,
        plan=ParallelPlan(pp=STAGES),
        ranks_on_host=STAGES,
    )
    pool = RankPool(report=tell_nobody)
    try:
        pool.start_children(STAGES - 1, environment=os.environ)
        gang = load_gang(
            config,
            pool,
            host=read_host_resources(),
            environment=os.environ,
            report=tell_nobody,
            times=LoadTimes(),
            end=lambda: None,
        )
        try:
            yield gang
        finally:
            gang.executor.close()
    finally:
        pool.close()


def _engine(gang: LoadedGang, in_flight: int) -> ShardedEngine:
    """A new one on the same ranks, with nothing in it."""
    gang.executor.max_in_flight = in_flight
    engine = ShardedEngine(
        SchedulerGroups(replace(gang.limits, max_in_flight=in_flight), num_groups=1),
        gang.executor,
        description=_description(gang),
        threads=ThreadGovernor(1),
        max_logprobs=gang.rank.config.max_logprobs,
    )
    engine.warm_up()
    return engine


def _description(gang: LoadedGang) -> EngineDescription:
    limits = gang.limits
    return EngineDescription(
        numerics_id="",
        max_model_len=limits.max_model_len,
        max_num_seqs=limits.max_num_seqs,
        kv_cache_tokens=limits.kv_cache_tokens,
        vocab_size=gang.rank.shape.vocab_size,
    )


def _decode_steps(engine: ShardedEngine, name: str, *, tokens: int) -> Iterator[StepResult]:
    """Steps in which all sequences are in decode, but for the first ones."""
    draw = random.Random(name)
    for number in range(NUM_SEQUENCES):
        engine.add(
            EngineRequest(
                request_id=f"{name}-{number}",
                prompt_ids=random_prompt(draw, _PROMPT_TOKENS, vocab_size=engine.description.vocab_size),
                sampling=Sampling(temperature=0.0, max_tokens=tokens),
            )
        )
    results = []
    while engine.has_work():
        results.append(engine.step())
    decodes = [r for r in results if not r.num_prefill_tokens and r.load.num_running == NUM_SEQUENCES]
    yield from decodes[_WARM_UP_STEPS:]
