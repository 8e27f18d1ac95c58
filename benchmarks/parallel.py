"""What it costs that a model lies on several ranks, in parts:

    python -m benchmarks.parallel
    python -m benchmarks.parallel channel --out-folder results
    python -m benchmarks.parallel channel collectives --short

- `channel`: a step's way from the leader to its ranks and back (benchmarks/step_channel.py);
- `collectives`: an all-reduce between ranks of one host (benchmarks/collectives.py);
- `bubble`: how much of the time the stages of a pipeline stand still (benchmarks/pipeline_bubble.py).

Prints one JSON object for each part, with commit, machine, load, configuration and figures; with `--out-folder` each
goes to a file `parallel_PART.json`, too. `--short` only shows that everything runs.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.collectives import collectives
from benchmarks.pipeline_bubble import pipeline_bubble
from benchmarks.step_channel import step_channel
from benchmarks.surroundings import load_average, surroundings

PARTS: dict[str, Callable[..., dict[str, object]]] = {
    "channel": step_channel,
    "collectives": collectives,
    "bubble": pipeline_bubble,
}


def main(words: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(words)
    for part in arguments.parts:
        text = json.dumps(measured(part, is_short=arguments.short), indent=2)
        if arguments.out_folder:
            (arguments.out_folder / f"parallel_{part}.json").write_text(text + "\n")
        print(text)


def parse_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes; the figures mean nothing")
    parser.add_argument("--out-folder", type=Path, help="also write the JSON there")
    arguments = parser.parse_args(words)
    for part in arguments.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}: name some of {', '.join(PARTS)}")
    arguments.parts = arguments.parts or list(PARTS)
    return arguments


def measured(part: str, *, is_short: bool) -> dict[str, object]:
    """One part with its surroundings."""
    before, facts = load_average(), surroundings()
    figures = PARTS[part](is_short=is_short)
    return {
        "benchmark": f"parallel {part}",
        **facts,
        "is_short": is_short,
        "load": {"before": before, "after": load_average()},
        **figures,
    }


if __name__ == "__main__":
    main()
