"""Python between two steps of a replica: how long the kernels wait for scheduling, sampling results and the leader.

    python -m benchmarks.step_overhead --model smollm2:135m
    python -m benchmarks.step_overhead --model model.gguf --batches 1,16,64 --stop-string END --out result.json

From the end of one run of the kernels to the begin of the next, in milliseconds, for each batch size:

- `engine`: steps that follow each other at once, nothing around them;
- `replica`: in a whole replica, with leader, event loop, stop strings and commits. Commits go to the queue in memory,
  on the same event loop, so that they cost the replica more here than where Redis does a part of it.

`wall` is what the kernels waited; on a busy machine that is mostly the wait for a core. `step_thread_cpu` is what the
step thread itself computed meanwhile, whoever else wanted the core.

Prints one JSON object with commit, machine, configuration and figures.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import cast

from benchmarks.random_prompts import random_prompt
from benchmarks.surroundings import load_average, surroundings
from shardline_cluster.fleet.deployment import Deployment, EngineOptions
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.processes.event_loop import new_event_loop
from shardline_cluster.queue.calls import Member, MemberRole
from shardline_cluster.queue.memory_request_queue import MemoryRequestQueue, MemoryServer
from shardline_cluster.queue.records import DisconnectAction, Submission
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.replica.engine_choice import LoadedModel, load_model
from shardline_cluster.replica.model_location import default_cache_folder
from shardline_cluster.replica.replica_process import prefer_steps, run_replica
from shardline_protos.record_pb2 import RequestPayload
from shardline_workers.engine import Engine, EngineRequest, Sampling
from shardline_workers.files.model_source import resolve_model
from shardline_workers.kernels.kernels import RunTimes
from shardline_workers.kernels.native_program import NativeProgram
from shardline_workers.kernels.reference_kernels import ReferenceProgram
from shardline_workers.text.load_text_model import load_text_model

_LANE = "overhead-1"
_PROMPT_TOKENS = 64
_WARM_UP_STEPS = 8  # prefills, and first touches of memory


@dataclass
class Runs:
    """Begin and end of every run of the kernels, on the wall's clock and on that of the step thread's CPU time."""

    wall_s: list[tuple[float, float]] = field(default_factory=list)
    cpu_s: list[tuple[float, float]] = field(default_factory=list)


def _gaps_ms(spans_s: Sequence[tuple[float, float]]) -> list[float]:
    """From one run's end to the next one's begin, without those of warming up and those of the last steps."""
    spans = spans_s[_WARM_UP_STEPS:-_WARM_UP_STEPS]
    return [1e3 * (after[0] - before[1]) for before, after in pairwise(spans)]


@contextmanager
def watched_runs() -> Iterator[Runs]:
    """Books the runs of all programs, whichever kernels they belong to."""
    runs = Runs()
    originals = {kind: kind.run for kind in (NativeProgram, ReferenceProgram)}

    def watched(original: Callable[..., RunTimes]) -> Callable[..., RunTimes]:
        def run(program: object, num_threads: int) -> RunTimes:
            wall_s, cpu_s = time.perf_counter(), time.thread_time()
            times = original(program, num_threads)
            runs.cpu_s.append((cpu_s, time.thread_time()))
            runs.wall_s.append((wall_s, time.perf_counter()))
            return times

        return run

    for kind, original in originals.items():
        kind.run = watched(original)  # type: ignore[method-assign]
    try:
        yield runs
    finally:
        for kind, original in originals.items():
            kind.run = original  # type: ignore[method-assign]


def engine_runs(model: LoadedModel, *, batch: int, num_steps: int) -> Runs:
    """Runs of an engine whose steps follow each other at once."""
    engine = model.engine
    sampling = Sampling(temperature=0.8, top_p=0.95, seed=1, max_tokens=num_steps)
    for number in range(batch):
        prompt = _prompt(number, model.engine.description.vocab_size)
        engine.add(EngineRequest(request_id=str(number), prompt_ids=prompt, sampling=sampling))
    with watched_runs() as runs:
        while engine.has_work():
            engine.step()
            engine.capacity()
    return runs


async def replica_runs(
    spec: ReplicaSpec, model: LoadedModel, *, batch: int, num_steps: int, stop_string: str | None
) -> Runs:
    """Runs of a replica that serves `batch` requests at once."""
    server = MemoryServer(spec.terms)
    queue = MemoryRequestQueue(server, _LANE)
    await queue.register(Member(incarnation="router", role=MemberRole.ROUTER))
    for number in range(batch):
        prompt = _prompt(number, model.engine.description.vocab_size)
        request = _submission(number, server, prompt=prompt, num_tokens=num_steps, stop_string=stop_string)
        await queue.submit("router", 1, request)
    stop = asyncio.Event()
    with watched_runs() as runs:
        life = asyncio.create_task(
            run_replica(
                spec,
                stop=stop,
                queue_factory=lambda _: MemoryRequestQueue(server, _LANE),
                model_loader=lambda _spec, _report: _lasting(model),
            )
        )
        while len(runs.wall_s) < num_steps + batch * _PROMPT_TOKENS // 512 and not life.done():  # noqa: ASYNC110 - they are booked by another thread
            await asyncio.sleep(0.05)
        stop.set()
        await life
    return runs


def _lasting(model: LoadedModel) -> LoadedModel:
    return LoadedModel(cast("Engine", _LastingEngine(model.engine)), model.text)


class _LastingEngine:
    """An engine that outlives the replica that closes it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def close(self) -> None:
        """Nothing: the next replica goes on with it."""


def _submission(
    number: int, server: MemoryServer, *, prompt: Sequence[int], num_tokens: int, stop_string: str | None
) -> Submission:
    payload = RequestPayload(model="overhead", prompt_ids=list(prompt))
    payload.sampling.ignore_eos = True
    payload.sampling.temperature = 0.8
    payload.sampling.top_p = 0.95
    payload.sampling.seed = number
    if stop_string is not None:
        payload.sampling.stop.append(stop_string)
    return Submission(
        id=f"{_LANE}-{number:032x}",
        drawn=server.identity,
        payload=payload.SerializeToString(),
        tenant="tenant",
        priority=0,
        num_sequences=1,
        prompt_tokens=len(prompt),
        max_tokens=num_tokens,
        num_logprobs=None,
        timeout_ms=None,
        max_queue_ms=3_600_000,
        on_disconnect=DisconnectAction.CONTINUE,
        grace_ms=0,
        retention_ms=60_000,
        store=True,
        idempotency_key=None,
        body_digest="",
        background=False,
    )


def _prompt(number: int, vocab_size: int) -> tuple[int, ...]:
    return random_prompt(random.Random(number), _PROMPT_TOKENS, vocab_size=vocab_size)


def _spec(arguments: argparse.Namespace, batch: int) -> ReplicaSpec:
    files = resolve_model(arguments.model, cache_folder=default_cache_folder(), report=lambda _: None)
    text = load_text_model(files, name="overhead", chat_template=None)
    deployment = Deployment(
        name="overhead",
        model=arguments.model,
        lane=_LANE,
        weights_digest=files.digest,
        max_model_len=text.max_model_len,
        options=EngineOptions(max_num_seqs=batch, kernels=arguments.kernels),
    )
    return ReplicaSpec(
        deployment=deployment,
        replica="overhead",
        incarnation="leader",
        redis_url="redis://127.0.0.1:1",
        prefix="shardline",
        terms=QueueTerms(),
        replicas_on_host=arguments.replicas_on_host,
    )


def _figures(runs: Runs) -> dict[str, object]:
    return {"wall": _summary(_gaps_ms(runs.wall_s)), "step_thread_cpu": _summary(_gaps_ms(runs.cpu_s))}


def _summary(values_ms: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values_ms)
    return {
        "p10_ms": round(ordered[int(0.1 * (len(ordered) - 1))], 4),
        "median_ms": round(statistics.median(ordered), 4),
        "p90_ms": round(ordered[int(0.9 * (len(ordered) - 1))], 4),
        "mean_ms": round(statistics.mean(ordered), 4),
        "samples": len(ordered),
    }


def _measure(arguments: argparse.Namespace, batch: int) -> dict[str, object]:
    spec = _spec(arguments, batch)
    model = load_model(spec, lambda _: None)
    engine = engine_runs(model, batch=batch, num_steps=arguments.steps)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        replica = runner.run(
            replica_runs(
                replace(spec, incarnation=f"leader-{batch}"),
                model,
                batch=batch,
                num_steps=arguments.steps,
                stop_string=arguments.stop_string,
            )
        )
    model.engine.close()
    return {
        "batch": batch,
        "engine": _figures(engine),
        "replica": _figures(replica),
        "details": model.engine.description.details,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2:135m", help="as for `shardline serve` (default %(default)s)")
    parser.add_argument("--batches", default="1,4,16,64", help="numbers of sequences (default %(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="of each measurement (default %(default)s)")
    parser.add_argument("--kernels", default="auto", choices=("auto", "native", "reference"))
    parser.add_argument("--replicas-on-host", type=int, default=1, help="they share its cores (default %(default)s)")
    parser.add_argument("--stop-string", help="which every request of the replica looks for")
    parser.add_argument("--out", type=Path, help="a file for the JSON, beside the output")
    arguments = parser.parse_args()
    prefer_steps()
    before = load_average()
    figures = [_measure(arguments, int(batch)) for batch in arguments.batches.split(",")]
    configuration = {name: str(value) for name, value in vars(arguments).items() if value is not None}
    result = {
        "benchmark": "step_overhead",
        **surroundings(),
        "configuration": configuration,
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
