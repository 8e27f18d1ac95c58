"""Ours beside llama.cpp and vLLM on this machine's CPU: in turns, in one call, with the same prompts' lengths.

    python -m benchmarks.compare_cpu --peers DIR --out result.json                  # everything, about 35 minutes
    python -m benchmarks.compare_cpu --peers DIR --out result.json --quick          # one short round: does it all work?
    python -m benchmarks.compare_cpu --peers DIR --out e.json --part engines --formats Q4_0,BF16
    python -m benchmarks.compare_cpu --table result.json --plot result.png          # measure nothing, show

DIR is what `benchmarks/peers/install.sh` made; README.md beside it says what is in it and why the comparison is fair.
Contenders take turns in every round, and the order moves on from round to round. Prompts are random tokens, new ones
each time. Beside each figure stands what else the machine did. The result file is written after every part. At the end
stand the tables, and every bar that we set ourselves with what was reached.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.compare.bars import Verdict, judge, verdict_lines
from benchmarks.compare.effort import Effort
from benchmarks.compare.engine_part import EnginePart
from benchmarks.compare.memory_part import MemoryPart
from benchmarks.compare.peer_folder import PeerFolder
from benchmarks.compare.perplexity_part import PerplexityPart
from benchmarks.compare.plot import draw
from benchmarks.compare.points import FORMAT_TO_PRECISION, Part, parse_formats
from benchmarks.compare.samples import Sample, noise_summary
from benchmarks.compare.server_part import ServerPart
from benchmarks.compare.tables import all_tables
from benchmarks.surroundings import load_average, surroundings


def part_samples(part: Part, arguments: argparse.Namespace, *, seed: int) -> Iterator[Sample]:
    """The samples of one part, one after the other."""
    folder, formats, rounds = PeerFolder(arguments.peers), arguments.formats, arguments.rounds
    threads = len(os.sched_getaffinity(0))
    effort = Effort(is_quick=arguments.quick)
    match part:
        case Part.PERPLEXITY:
            return PerplexityPart(folder, formats, threads).samples()
        case Part.MEMORY:
            return MemoryPart(folder, formats, threads, seed).samples()
        case Part.ENGINES:
            part_of_engines = EnginePart(folder, formats, rounds=rounds, effort=effort, threads=threads, seed=seed)
            return part_of_engines.samples()
        case Part.SERVERS:
            return ServerPart(folder, formats, rounds, effort, threads, seed).samples()


def measure(arguments: argparse.Namespace) -> list[Sample]:
    """Measures the parts, and writes the result file after each."""
    seed = random.SystemRandom().randrange(1 << 30) if arguments.seed is None else arguments.seed
    head: dict[str, Any] = {
        "benchmark": "compare_cpu",
        **surroundings(),
        "peers": PeerFolder(arguments.peers).versions(arguments.formats[0]),
        "configuration": {
            "formats": list(arguments.formats),
            "parts": [part.value for part in arguments.part],
            "rounds": arguments.rounds,
            "quick": arguments.quick,
            "seed": seed,
        },
        "load_average_before": load_average(),
    }
    samples: list[Sample] = []
    for part in arguments.part:
        began = time.monotonic()
        for sample in part_samples(part, arguments, seed=seed):
            samples.append(sample)
            print(_progress(sample), file=sys.stderr, flush=True)
        head[f"{part.value}_took_s"] = round(time.monotonic() - began, 1)
        arguments.out.write_text(json.dumps(report(head, samples), indent=1) + "\n")
    return samples


def report(head: dict[str, Any], samples: Sequence[Sample]) -> dict[str, Any]:
    """The result file: what was measured, where, and how it stands beside our bars."""
    return {
        **head,
        "load_average_after": load_average(),
        "noise": {name: asdict(spread) for name, spread in noise_summary(samples).items()},
        "bars": [_verdict_json(verdict) for verdict in judge(samples)],
        "samples": [sample.to_json() for sample in samples],
    }


def read_samples(paths: Iterable[Path]) -> list[Sample]:
    """The samples of one or more result files.

    Raises:
        OSError, ValueError, KeyError: a file cannot be read, or is no result of ours.
    """
    return [Sample.from_json(told) for path in paths for told in json.loads(path.read_text())["samples"]]


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    bar = verdict.bar
    return {
        "name": f"{bar.part}: {bar.point}, {bar.figure}, {verdict.format}",
        "rivals": bar.rivals.value,
        "rival": verdict.rival,
        "sense": bar.sense.value,
        "wanted": bar.wanted,
        "goal": bar.goal,
        "ratio": asdict(verdict.ratio),
        "ours": asdict(verdict.ours),
        "theirs": asdict(verdict.theirs),
        "met": verdict.met,
        "goal_met": verdict.goal_met,
    }


def _progress(sample: Sample) -> str:
    figures = ", ".join(f"{name} {value:.4g}" for name, value in sample.figures.items())
    others = sample.noise.get("others_cpu_share")
    noise = "" if others is None else f" (others {others:.0%} of the machine)"
    return f"{sample.part} {sample.round} {sample.point} {sample.format} {sample.contender}: {figures}{noise}"


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the flags."""
    parser = argparse.ArgumentParser(
        prog="compare_cpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=Path, metavar="DIR", help="where install.sh put the peers")
    parser.add_argument("--out", type=Path, metavar="JSON", help="the result file")
    parser.add_argument("--rounds", type=_positive_int, help="of engines and servers (default 5, quick 1)")
    parser.add_argument(
        "--formats", type=_formats, default=tuple(FORMAT_TO_PRECISION), help="default Q4_0,Q4_1,Q8_0,BF16"
    )
    parser.add_argument(
        "--part", action="append", type=Part, metavar="PART", help="engines, servers, perplexity or memory; default all"
    )
    parser.add_argument("--quick", action="store_true", help="short measurements: a look whether everything works")
    parser.add_argument("--seed", type=int, help="of prompts; by default another one each time")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the result (needs matplotlib)")
    parser.add_argument("--table", type=Path, nargs="+", metavar="JSON", help="measure nothing; show these results")
    arguments = parser.parse_args(argv)
    if arguments.table is None and (arguments.peers is None or arguments.out is None):
        parser.error("--peers and --out are needed to measure, or --table to show what was measured")
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 5)
    arguments.part = arguments.part or list(Part)
    return arguments


def _positive_int(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return number


def _formats(text: str) -> tuple[str, ...]:
    try:
        return parse_formats(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _end_tidily(number: int, _frame: object) -> None:
    """Told to end, every server and engine is ended too: the blocks that started them are left in order."""
    sys.exit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, or shows what was measured."""
    arguments = parse_arguments(argv)
    if arguments.table is None:
        signal.signal(signal.SIGTERM, _end_tidily)
        samples = measure(arguments)
    else:
        samples = read_samples(arguments.table)
    print(all_tables(samples))
    print()
    print("\n".join(verdict_lines(judge(samples))))
    if arguments.plot is not None:
        draw(samples, arguments.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
