"""A load on a running cluster, through the client that users have: time to first token, between tokens, throughput.

    python -m benchmarks.serve_load --concurrency 16 --num-requests 200          # closed loop
    python -m benchmarks.serve_load --rate 5 --duration-s 60                     # open loop, Poisson arrivals
    python -m benchmarks.serve_load --trace arrivals.csv                         # open loop, recorded arrivals

Prints one JSON object with commit, machine, configuration and figures. Bounded by number and by time.
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.load_plan import LengthRange, PlannedRequest, closed_loop, open_loop, read_trace
from benchmarks.measurements import Measurement, summarise
from benchmarks.process_cpu import ProcessCpu, cpu_report, read_cpu
from benchmarks.surroundings import load_average, surroundings
from shardline import Accepted, AsyncClient, Event, Finished, RequestState, Started, Tokens
from shardline.errors import ShardlineError

_SAMPLE_TEXT = (
    "The quick brown fox jumps over the lazy dog while seven wizards quietly mix 1234567890 jars of boiling quartz. "
    "Grain by grain a loaf, stone upon stone a palace; and yet nobody has counted the waves of the sea."
)
_WARM_UP_TOKENS = 8
PATIENCE_S = 20.0  # a cluster that is away for longer is not measured


class Load:
    """Sends the requests of a plan and measures each."""

    def __init__(self, client: AsyncClient, arguments: argparse.Namespace, vocabulary: Sequence[int]) -> None:
        self._client = client
        self._arguments = arguments
        self._rng = random.Random(arguments.seed + 1)
        self._vocabulary = vocabulary
        self._shared_prefix = self._draw_tokens(arguments.shared_prefix)
        self.measurements: list[Measurement] = []

    async def warm_up(self, num_requests: int) -> None:
        """Requests that nobody counts: connections, caches and compilers get ready.

        Raises:
            ShardlineError: one of them fails; then nothing is worth measuring.
        """
        for _ in range(num_requests):
            await self._client.generate(
                self._prompt(_WARM_UP_TOKENS), model=self._arguments.model, max_tokens=_WARM_UP_TOKENS
            )

    async def run(self, plan: Sequence[PlannedRequest]) -> tuple[float, float]:
        """Sends the plan until it or its time is over, waits for what is on its way; returns start and end."""
        began = time.perf_counter()
        tasks: set[asyncio.Task[None]] = set()
        room = asyncio.Semaphore(self._arguments.concurrency or len(plan))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._arguments.duration_s):
                async for planned in _when_due(plan, began, room):
                    task = asyncio.create_task(self._send(planned, began, room))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._arguments.drain_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        return began, time.perf_counter()

    async def _send(self, planned: PlannedRequest, began: float, room: asyncio.Semaphore) -> None:
        now = time.perf_counter()
        measured = Measurement(due_at=now if planned.at_s is None else began + planned.at_s, sent_at=now)
        self.measurements.append(measured)
        try:
            await self._receive(planned, measured)
        except asyncio.CancelledError:
            measured.error = "unfinished"
            raise
        except ShardlineError as error:
            measured.error = type(error).__name__
        finally:
            room.release()

    async def _receive(self, planned: PlannedRequest, measured: Measurement) -> None:
        stream = self._client.stream(
            self._prompt(planned.prompt_tokens),
            model=self._arguments.model,
            max_tokens=planned.output_tokens,
            ignore_eos=self._arguments.ignore_eos,
            temperature=self._arguments.temperature,
            seed=self._arguments.seed + planned.number,
            on_disconnect="cancel",
            timeout_s=self._arguments.timeout_s,
        )
        async with stream:
            async for event in stream:
                note(measured, event, time.perf_counter())

    def _prompt(self, num_tokens: int) -> list[int]:
        return (self._shared_prefix + self._draw_tokens(num_tokens))[:num_tokens]

    def _draw_tokens(self, num_tokens: int) -> list[int]:
        """Ids at random: no prompt begins like another, so that no prefix cache flatters the figures."""
        return self._rng.choices(self._vocabulary, k=num_tokens)


def note(measured: Measurement, event: Event, now: float) -> None:
    """Writes down what an event says about time."""
    match event:
        case Accepted():
            measured.accepted_at, measured.prompt_tokens = now, event.prompt_tokens
        case Started():
            measured.started_at = measured.started_at or now
        case Tokens() if event.token_ids:
            measured.arrivals.append((now, len(event.token_ids)))
        case Finished():
            measured.ended_at = now
            if event.state is not RequestState.DONE:
                measured.error = event.state.value


async def _when_due(
    plan: Sequence[PlannedRequest], began: float, room: asyncio.Semaphore
) -> AsyncIterator[PlannedRequest]:
    """Each request when its time has come, or when there is room; takes the room."""
    for planned in plan:
        if planned.at_s is not None:
            await asyncio.sleep(max(0.0, began + planned.at_s - time.perf_counter()))
        await room.acquire()
        yield planned


def make_plan(arguments: argparse.Namespace) -> list[PlannedRequest]:
    """The requests that the flags ask for.

    Raises:
        ValueError, OSError: the trace cannot be read.
    """
    if arguments.trace:
        return read_trace(arguments.trace, num_requests=arguments.num_requests)
    rng = random.Random(arguments.seed)
    if arguments.rate is None:
        return closed_loop(
            rng, num_requests=arguments.num_requests, prompt=arguments.input_tokens, output=arguments.output_tokens
        )
    return open_loop(
        rng,
        rate_per_s=arguments.rate,
        num_requests=arguments.num_requests,
        prompt=arguments.input_tokens,
        output=arguments.output_tokens,
    )


async def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Runs the load and returns the whole report."""
    plan = make_plan(arguments)
    report = {"benchmark": "serve_load", **surroundings(), "configuration": configuration(arguments)}
    async with AsyncClient(arguments.endpoint, patience_s=PATIENCE_S, max_refusals=0) as client:
        report["models"] = [asdict(model) for model in await client.models()]
        sample = await client.tokenize(_SAMPLE_TEXT, model=arguments.model, add_special_tokens=False)
        load = Load(client, arguments, sorted(set(sample.token_ids)))
        await load.warm_up(arguments.warm_up)
        report["load_average_before"] = load_average()
        cpu_before = _cpu_of(arguments.processes)
        began, ended = await load.run(plan)
        cpu_after = _cpu_of(arguments.processes)
        report["load_average_after"] = load_average()
    report["results"] = summarise(load.measurements, began=began, ended=ended)
    num_tokens = sum(measured.num_tokens for measured in load.measurements)
    if cpu_before and cpu_after and num_tokens:
        report["cpu"] = cpu_report(cpu_before, cpu_after, num_tokens=num_tokens)
    return report


def _cpu_of(processes: int | None) -> ProcessCpu | None:
    return None if processes is None else read_cpu(processes)


def configuration(arguments: argparse.Namespace) -> dict[str, object]:
    """The flags as JSON can hold them."""
    return {
        name: value if isinstance(value, int | float | list | None) else str(value)
        for name, value in vars(arguments).items()
    }


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the flags."""
    parser = argparse.ArgumentParser(prog="serve_load", description=__doc__.splitlines()[0])
    parser.add_argument("--endpoint", action="append", metavar="HOST:PORT", help="a router (default 127.0.0.1:50051)")
    parser.add_argument("--model", default="", help="may be left out where one model is served")
    arrivals = parser.add_mutually_exclusive_group()
    arrivals.add_argument("--concurrency", type=_positive_int, help="requests on their way at any time (default 8)")
    arrivals.add_argument("--rate", type=_positive_float, help="arrivals a second, on average")
    arrivals.add_argument("--trace", type=Path, help="CSV file of seconds, prompt tokens, output tokens")
    parser.add_argument("--num-requests", type=_positive_int, default=100, help="at most so many")
    parser.add_argument("--duration-s", type=_positive_float, default=60.0, help="send for at most so long")
    parser.add_argument(
        "--drain-s", type=_positive_float, default=60.0, help="then wait so long for those on their way"
    )
    parser.add_argument("--timeout-s", type=_positive_float, help="timeout of each request")
    parser.add_argument("--input-tokens", type=LengthRange.parse, default=LengthRange(128, 128), help="128 or 64-256")
    parser.add_argument("--output-tokens", type=LengthRange.parse, default=LengthRange(64, 64), help="64 or 16-128")
    parser.add_argument("--shared-prefix", type=int, default=0, help="tokens with which every prompt begins")
    parser.add_argument(
        "--ignore-eos", action=argparse.BooleanOptionalAction, default=True, help="generate the full length"
    )
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0, help="of lengths, prompts and arrivals")
    parser.add_argument("--processes", type=_positive_int, metavar="PID", help="count CPU time of serve's processes")
    parser.add_argument("--warm-up", type=int, default=2, help="requests before, which are not counted")
    parser.add_argument("--out", type=Path, help="write the JSON there instead of to standard output")
    arguments = parser.parse_args(argv)
    arguments.endpoint = arguments.endpoint or ["127.0.0.1:50051"]
    if arguments.concurrency is None and arguments.rate is None and arguments.trace is None:
        arguments.concurrency = 8
    return arguments


def _positive_int(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return number


def _positive_float(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} must be more than 0")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; exit code 1 if nothing could be measured, or if any request failed."""
    arguments = parse_arguments(argv)
    try:
        report = asyncio.run(measure(arguments))
    except (ShardlineError, ValueError, OSError) as error:
        print(f"serve_load: {error}", file=sys.stderr)
        return 1
    text = json.dumps(report, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    else:
        print(text)
    results = report["results"]
    assert isinstance(results, dict), "summarise returns a dictionary"
    return 1 if results["errors"] or not results["completed"] else 0


if __name__ == "__main__":
    sys.exit(main())
