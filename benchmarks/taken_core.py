"""Decode while another process takes a whole core: threads that give way against one thread that was alone.

    python -m benchmarks.taken_core --model smollm2:135m
    python -m benchmarks.taken_core --batches 1,16 --rounds 5 --seconds 3 --out result.json

Two engines of the same weights take turns: `one` has one thread, `all` may use as many as there are cores and decides
by itself. Each decodes in quiet and beside a child that does nothing but compute. The engine's judgement is kept from
turn to turn, so that the figures contain what giving way and coming back cost; `slices` show it, by tenths of a turn.

Prints one JSON object with commit, machine, configuration and figures. `ratios` hold the median of the rounds' ratios.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.random_prompts import random_prompt
from benchmarks.surroundings import load_average, surroundings
from shardline_cluster.replica.model_location import default_cache_folder
from shardline_workers.engine import EngineRequest, Sampling
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.files.model_source import ModelFiles, resolve_model
from shardline_workers.memory_budget import read_host_resources
from shardline_workers.sharded_engine import ShardedEngine

_PROMPT_TOKENS = 64
_NUM_SLICES = 10
_WARM_UP_S = 1.0
_TURNS = ("one_quiet", "all_quiet", "one_beside", "all_beside")  # who decodes, and whether a neighbour computes


@dataclass(frozen=True, slots=True)
class Turn:
    """Decode of one engine for a while."""

    tokens_per_s: float
    slices: tuple[float, ...]  # the same, by tenths of the turn


def decode(engine: ShardedEngine, *, batch: int, seconds: float, seed: int) -> Turn:
    """Decodes `batch` sequences for so long; their prefill does not count."""
    _start(engine, batch=batch, seed=seed)
    ends: list[tuple[float, int]] = []
    began = time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        num_tokens = len(engine.step().sequences)
        ends.append((time.perf_counter() - began, num_tokens))
    for number in range(batch):
        engine.cancel(str(number))
    slices = [0.0] * _NUM_SLICES
    for at, num_tokens in ends:
        slices[min(_NUM_SLICES - 1, int(at / seconds * _NUM_SLICES))] += num_tokens * _NUM_SLICES / seconds
    return Turn(sum(number for _, number in ends) / (now - began), tuple(round(rate, 1) for rate in slices))


def _start(engine: ShardedEngine, *, batch: int, seed: int) -> None:
    """Adds the sequences and computes until each has its first token."""
    draw = random.Random(seed)
    vocab_size, longest = engine.description.vocab_size, engine.description.max_model_len - _PROMPT_TOKENS
    for number in range(batch):
        prompt = random_prompt(draw, _PROMPT_TOKENS, vocab_size=vocab_size)
        sampling = Sampling(temperature=0.0, max_tokens=longest)
        engine.add(EngineRequest(request_id=str(number), prompt_ids=prompt, sampling=sampling))
    started: set[str] = set()
    while len(started) < batch:
        started.update(step.request_id for step in engine.step().sequences)


@contextmanager
def neighbour(*, wanted: bool) -> Iterator[None]:
    """A child that computes all the time, where `wanted`."""
    if not wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        try:
            yield
        finally:
            child.kill()


def rounds_of(engines: dict[str, ShardedEngine], *, batch: int, seconds: float, num_rounds: int) -> dict[str, object]:
    """All turns of one batch size, one after the other, round by round."""
    turns: dict[str, list[Turn]] = {name: [] for name in _TURNS}
    for engine in engines.values():
        decode(engine, batch=batch, seconds=_WARM_UP_S, seed=-1)
    for number in range(num_rounds):
        for name in _TURNS:
            threads, _, where = name.partition("_")
            with neighbour(wanted=where == "beside"):
                turns[name].append(decode(engines[threads], batch=batch, seconds=seconds, seed=number))
    return {"batch": batch, **{name: _summary(found) for name, found in turns.items()}, "ratios": _ratios(turns)}


def _summary(turns: Sequence[Turn]) -> dict[str, object]:
    rates = [turn.tokens_per_s for turn in turns]
    return {
        "tokens_per_s": {
            "median": round(statistics.median(rates), 1),
            "min": round(min(rates), 1),
            "max": round(max(rates), 1),
        },
        "slices": [turn.slices for turn in turns],
    }


def _ratios(turns: dict[str, list[Turn]]) -> dict[str, float]:
    def ratio(one: str, other: str) -> float:
        pairs = zip(turns[one], turns[other], strict=True)
        return round(statistics.median(a.tokens_per_s / b.tokens_per_s for a, b in pairs), 3)

    return {
        "all_quiet_to_one_quiet": ratio("all_quiet", "one_quiet"),
        "all_beside_to_one_quiet": ratio("all_beside", "one_quiet"),
        "all_beside_to_one_beside": ratio("all_beside", "one_beside"),
    }


def _engines(files: ModelFiles, *, batch: int, max_model_len: int) -> dict[str, ShardedEngine]:
    num_cores = read_host_resources().num_cores

    def engine(replicas_on_host: int) -> ShardedEngine:
        config = EngineConfig(
            files=files,
            max_num_seqs=batch,
            max_model_len=max_model_len,
            kv_cache_tokens=batch * max_model_len,
            replicas_on_host=replicas_on_host,
        )
        return load_engine(config, report=lambda _: None)

    return {"one": engine(num_cores), "all": engine(1)}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2:135m", help="as for `shardline serve` (default %(default)s)")
    parser.add_argument("--batches", default="1,16", help="numbers of sequences (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn (default %(default)g)")
    parser.add_argument("--max-model-len", type=int, default=4096, help="bounds a turn's tokens (default %(default)s)")
    parser.add_argument("--out", type=Path, help="a file for the JSON, beside the output")
    arguments = parser.parse_args()
    files = resolve_model(arguments.model, cache_folder=default_cache_folder(), report=lambda _: None)
    batches = [int(batch) for batch in arguments.batches.split(",")]
    engines = _engines(files, batch=max(batches), max_model_len=arguments.max_model_len)
    before = load_average()
    figures = [
        rounds_of(engines, batch=batch, seconds=arguments.seconds, num_rounds=arguments.rounds) for batch in batches
    ]
    result = {
        "benchmark": "taken_core",
        **surroundings(),
        "configuration": {name: str(value) for name, value in vars(arguments).items() if value is not None},
        "threads": engines["all"].description.details["threads"],
        "figures": figures,
        "load_average_before": before,
        "load_average_after": load_average(),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
