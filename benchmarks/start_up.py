"""How long a first and a second start of `shardline serve` take, by phase, and what memory all of it takes then.

    python -m benchmarks.start_up --rounds 3 --out results/start_up.json
    python -m benchmarks.start_up --launchers local --kv-cache-tokens 8192

A first start has an empty cache: it hashes the file, builds the native kernels and packs the weights. A second one
finds all that. Launchers, sizes of the KV cache and starts take turns within a round. The model's file is fetched
before, and is in the page cache. Times are of the wall clock, from the start of the process to its line `ready`.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.process_cpu import OWN_PROCESS, read_cpu
from benchmarks.process_memory import memory_report, read_memory
from benchmarks.surroundings import load_average, surroundings
from shardline_cluster.cli.run_file import read_run_file
from shardline_cluster.replica.model_location import default_cache_folder
from shardline_workers.files.model_source import resolve_model

READY_WITHIN_S = 300.0
STOPPED_WITHIN_S = 30.0
_NAME = "start-up"


class StartFailedError(Exception):
    """`serve` ended, or took too long; the text is what it said."""


def measure_start(model: Path, cache: Path, *, launcher: str, kv_cache_tokens: int | None) -> dict[str, Any]:
    """Starts `serve`, looks at it once it is ready, and stops it.

    Raises:
        StartFailedError: it did not get ready, or not to an end.
    """
    with TemporaryDirectory(prefix="su-", dir="/tmp") as folder:  # short: sockets have a limit
        environment = _environment(Path(folder), cache)
        size = [] if kv_cache_tokens is None else ["--kv-cache-tokens", str(kv_cache_tokens)]
        began_s = time.perf_counter()
        command = [*_COMMAND, "serve", str(model), "--grpc-port", "0", "--launcher", launcher, "--name", _NAME, *size]
        serve = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            _wait_until_ready(serve)
            total_s = time.perf_counter() - began_s
            return {
                "total_s": round(total_s, 3),
                "phases_s": read_run_file(_NAME, environment).start_s,
                "cpu_s": _cpu_s(serve.pid),
                "engine": _engine_bytes(environment),
                "memory": memory_report(read_memory(serve.pid)),
            }
        finally:
            _stop(serve)


_COMMAND = (sys.executable, "-m", "shardline_cluster.cli.main")


def _environment(folder: Path, cache: Path) -> dict[str, str]:
    runtime = folder / "run"
    runtime.mkdir(mode=0o700)
    paths = {"XDG_RUNTIME_DIR": str(runtime), "TMPDIR": str(folder), "XDG_CACHE_HOME": str(cache)}
    return {**os.environ, **paths, "PYTHONPATH": os.pathsep.join(sys.path)}


def _wait_until_ready(serve: "subprocess.Popen[str]") -> None:
    assert serve.stdout is not None, "its output is read"
    give_up_s, said = time.monotonic() + READY_WITHIN_S, ""
    for line in serve.stdout:
        said += line
        if line.startswith("ready"):
            return
        if time.monotonic() > give_up_s:
            break
    raise StartFailedError(f"serve was not ready; it said:\n{said}")


def _stop(serve: "subprocess.Popen[str]") -> None:
    serve.send_signal(signal.SIGTERM)
    try:
        serve.communicate(timeout=STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired as late:
        serve.kill()
        raise StartFailedError(f"serve did not end within {STOPPED_WITHIN_S:.0f} s") from late


def _cpu_s(root: int) -> float:
    """CPU seconds of all processes that are there, this one left out: on a busy machine they say more than the wall."""
    threads = read_cpu(root).threads.items()
    return round(sum(cpu_s for (role, _, _), cpu_s in threads if role != OWN_PROCESS), 3)


def _engine_bytes(environment: Mapping[str, str]) -> dict[str, int]:
    """What the replica says of its weights and KV cache."""
    command = [*_COMMAND, "status", "--json", "--name", _NAME]
    status = json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    replica = status["deployments"][0]["replicas"][0]
    return {name: replica[name] for name in ("weights_bytes", "kv_cache_bytes")}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All rounds and what they say together."""
    source = resolve_model(arguments.model, cache_folder=default_cache_folder(), report=lambda _line: None)
    starts: list[dict[str, Any]] = []
    for number in range(arguments.rounds):
        for launcher in arguments.launchers:
            for kv_cache_tokens in arguments.kv_cache_tokens or [None]:
                with TemporaryDirectory(prefix="su-cache-") as cache:
                    for start in ("first", *["second"] * arguments.second_starts):
                        how = {"launcher": launcher, "kv_cache_tokens": kv_cache_tokens, "start": start}
                        before = load_average()
                        measured = measure_start(
                            source.path, Path(cache), launcher=launcher, kv_cache_tokens=kv_cache_tokens
                        )
                        starts.append({"round": number, **how, "load_average_before": before, **measured})
                        print(f"{how}: {measured['total_s']} s", file=sys.stderr)
    return {
        "benchmark": "start_up",
        **surroundings(),
        "model": source.source,
        "medians": summary(starts),
        "starts": starts,
    }


def summary(starts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Median of the total and of each phase, and median memory, for each kind of start."""
    kinds = list(dict.fromkeys((s["launcher"], s["kv_cache_tokens"], s["start"]) for s in starts))
    return [
        _summary_of([s for s in starts if (s["launcher"], s["kv_cache_tokens"], s["start"]) == kind]) for kind in kinds
    ]


def _summary_of(starts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = starts[0]
    totals = [start["total_s"] for start in starts]
    phases = {
        name: round(median(start["phases_s"].get(name, 0.0) for start in starts), 3) for name in first["phases_s"]
    }
    return {
        **{name: first[name] for name in ("launcher", "kv_cache_tokens", "start")},
        "total_s": round(median(totals), 3),
        "total_s_range": [min(totals), max(totals)],
        "phases_s": phases,
        "cpu_s": round(median(start["cpu_s"] for start in starts), 3),
        "engine": first["engine"],
        "total_pss_mib": round(median(start["memory"]["total_pss_mib"] for start in starts), 1),
    }


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the flags."""
    parser = argparse.ArgumentParser(prog="start_up", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2:135m", help="as `shardline serve` takes it")
    parser.add_argument("--launchers", nargs="+", choices=("local", "ray"), default=["local", "ray"])
    parser.add_argument("--kv-cache-tokens", nargs="+", type=int, help="sizes to measure beside each other")
    parser.add_argument("--rounds", type=int, default=3, help="first starts of each kind")
    parser.add_argument("--second-starts", type=int, default=2, help="after each first one")
    parser.add_argument("--out", type=Path, help="write the JSON there instead of to standard output")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; exit code 1 where a start failed."""
    arguments = parse_arguments(argv)
    try:
        report = measure(arguments)
    except (StartFailedError, ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"start_up: {error}", file=sys.stderr)
        return 1
    text = json.dumps(report, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
