"""A long round of fuzzing: `make fuzz`, or

    python -m tests.fuzz.campaign --cases 200000 --seed 1 --workers 2 --out results.json [TARGET …]
    python -m tests.fuzz.campaign --seed 1 --only 4711 gguf       one case again, with its error

Each case follows from seed, target and index alone. A case passes if its input is read, or refused with the documented
error, within its CPU time and its process's bound of memory. The inputs of all others are written to --findings.
Prints one JSON object with commit, machine and counts; ends with 1 where something was found.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks.surroundings import surroundings
from tests.fuzz.case_runner import CASE_LIMIT_S, READ, Finding, case_input, run_case
from tests.fuzz.fuzz_worker import MEMORY_ROOM_BYTES, Progress, Share, work
from tests.fuzz.target import FuzzTarget
from tests.fuzz.targets import TARGETS

SILENCE_LIMIT_S = 120.0  # by the clock, without a further case: native code that never returns is killed
NOT_BEGUN = -1  # stands for the index of a process that has run no case yet
MOST_FINDINGS = 20  # of one target: whoever finds more has found enough
_MIB = 1 << 20


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Any
    place: Any
    share: Share
    num_told: int = 0  # cases
    seen_index: int = NOT_BEGUN
    seen_s: float = 0.0  # instant of the last new index


def run_campaign(
    target: FuzzTarget, *, seed: int, num_cases: int, num_workers: int, silence_limit_s: float = SILENCE_LIMIT_S
) -> Progress:
    """All cases 0 … `num_cases` - 1 of one target, in processes of their own."""
    total = Progress()
    shares = [Share(seed=seed, first=i, step=num_workers, stop=num_cases) for i in range(min(num_workers, num_cases))]
    workers = [_start(target, share) for share in shares]
    try:
        while workers and len(total.findings) < MOST_FINDINGS:
            for pipe in wait([worker.pipe for worker in workers], timeout=1.0):
                worker = next(worker for worker in workers if worker.pipe is pipe)
                workers.remove(worker)
                workers += _heard(target, worker, total)
            for worker in workers:
                _kill_where_silent(worker, silence_limit_s)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
    return total


def _start(target: FuzzTarget, share: Share) -> _Worker:
    context = multiprocessing.get_context("spawn")
    place = context.Array("q", [NOT_BEGUN], lock=False)
    pipe, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(target, share, theirs, place), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, pipe, place, share)


def _heard(target: FuzzTarget, worker: _Worker, total: Progress) -> list[_Worker]:
    """Takes a worker's word; returns who goes on with its share."""
    try:
        told: Progress = worker.pipe.recv()
    except EOFError:
        worker.process.join()
        return [] if worker.process.exitcode == 0 else _lost(target, worker, total)
    worker.num_told += told.num_cases
    _add(total, told)
    return [worker]


def _lost(target: FuzzTarget, worker: _Worker, total: Progress) -> list[_Worker]:
    """A process is gone, and with it how its last cases ended; the very last one is the finding."""
    index, share = worker.place[0], worker.share
    if index == NOT_BEGUN:
        raise RuntimeError(f"a process for {target.name} ended with {worker.process.exitcode} before its first case")
    total.num_cases += (index - share.first) // share.step + 1 - worker.num_told
    total.findings.append(Finding(index, f"the process ended with {worker.process.exitcode}"))
    rest = replace(share, first=index + share.step)
    return [_start(target, rest)] if rest.first < rest.stop else []


def _kill_where_silent(worker: _Worker, limit_s: float) -> None:
    index = worker.place[0]
    if index != worker.seen_index:
        worker.seen_index, worker.seen_s = index, time.monotonic()
    elif index != NOT_BEGUN and time.monotonic() - worker.seen_s > limit_s:  # else it is still importing
        worker.process.kill()


def _add(total: Progress, more: Progress) -> None:
    total.num_cases += more.num_cases
    total.outcomes += more.outcomes
    total.findings += more.findings
    total.peak_bytes = max(total.peak_bytes, more.peak_bytes)
    total.start_bytes = max(total.start_bytes, more.start_bytes)


def _report(target: FuzzTarget, progress: Progress, *, seed: int, seconds: float) -> dict[str, Any]:
    refused = {name: count for name, count in progress.outcomes.most_common() if name != READ}
    return {
        "target": target.name,
        "seed": seed,
        "cases": progress.num_cases,
        "read": progress.outcomes[READ],
        "refused": sum(refused.values()),
        "refused_by": refused,
        "findings": [{"index": finding.index, "why": finding.why} for finding in progress.findings],
        "seconds": round(seconds, 1),
        "peak_resident_mib": round(progress.peak_bytes / _MIB),
        "grown_mib": round((progress.peak_bytes - progress.start_bytes) / _MIB),
    }


def _keep_inputs(target: FuzzTarget, progress: Progress, *, seed: int, folder: Path) -> None:
    for finding in progress.findings:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{target.name}-{seed}-{finding.index}.bin"
        path.write_bytes(case_input(target, seed, finding.index))
        print(f"FOUND {path}: {finding.why}", file=sys.stderr)


def _run_all(arguments: argparse.Namespace) -> dict[str, Any]:
    reports = []
    for name in arguments.targets or TARGETS:
        target, began = TARGETS[name], time.monotonic()
        progress = run_campaign(target, seed=arguments.seed, num_cases=arguments.cases, num_workers=arguments.workers)
        report = _report(target, progress, seed=arguments.seed, seconds=time.monotonic() - began)
        _keep_inputs(target, progress, seed=arguments.seed, folder=arguments.findings)
        print(
            f"{name}: {report['cases']} cases in {report['seconds']} s, {len(progress.findings)} findings",
            file=sys.stderr,
        )
        reports.append(report)
    bounds = {"case_cpu_s": CASE_LIMIT_S, "address_space_room_mib": MEMORY_ROOM_BYTES // _MIB}
    return {"surroundings": surroundings(), "workers": arguments.workers, "bounds": bounds, "targets": reports}


def _run_one(target: FuzzTarget, *, seed: int, index: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(run_case(target, case_input(target, seed, index), Path(folder)))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all if none is named")
    parser.add_argument("--cases", type=int, default=200_000, help="of each target (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default %(default)s)")
    parser.add_argument("--out", type=Path, help="write the JSON here as well")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="folder for inputs (%(default)s)")
    parser.add_argument(
        "--only", type=int, metavar="INDEX", help="run this case of one target alone, and show its error"
    )
    arguments = parser.parse_args(argv)
    for name in arguments.targets:
        if name not in TARGETS:
            parser.error(f"there is no target {name!r}: it must be one of {', '.join(TARGETS)}")
    if arguments.only is not None and len(arguments.targets) != 1:
        parser.error("--only is of one target: name it")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what the command line says; 1 where something was found."""
    arguments = _arguments(argv)
    if arguments.only is not None:
        _run_one(TARGETS[arguments.targets[0]], seed=arguments.seed, index=arguments.only)
        return 0
    result = _run_all(arguments)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")
    return int(any(report["findings"] for report in result["targets"]))


if __name__ == "__main__":
    sys.exit(main())
