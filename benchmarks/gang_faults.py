"""How long a sharded replica over several Ray nodes is away when a part of it is lost in the middle of answers.

    python -m benchmarks.gang_faults
    python -m benchmarks.gang_faults --rounds 3 --out benchmarks/results/gang_faults.json

A Ray cluster of a head and three nodes on this machine, each with two pretended GPUs; the tiny model of the tests in
float64 over four of them (tp=2 inside a node, pp=2 across), four answers at the same time. In each round a rank is
killed, a rank is stopped, the leader is killed, a machine is lost (its raylet is killed) and Ray's head is killed.

`detected_s` is the time until the controller had seen the replica's end, `longest_gap_s` the longest time in which no
client got a token, `served_s` the time until tokens came again; all count from the fault. A replica starts again with
four processes that import torch: on few cores that is most of the time. Every answer is compared with an undisturbed
one; a difference ends the benchmark. Prints one JSON object with commit, machine and figures.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.surroundings import load_average, surroundings
from shardline import AsyncClient
from tests.end_to_end.gang_faults import (
    PROMPTS,
    FaultReport,
    answers,
    broken_answers,
    kill,
    ready_shapes,
    sharded_cluster,
    stop,
)
from tests.end_to_end.ray_nodes import RayNode, RayNodes, running_ray_nodes

_TP, _PP, _GPUS = 2, 2, 2
_PATIENCE_S = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the JSON object there, too")
    arguments = parser.parse_args()
    result = {**surroundings(), "load_before": load_average(), **asyncio.run(measure(arguments.rounds))}
    text = json.dumps({**result, "load_after": load_average()}, indent=2)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")


async def measure(rounds: int) -> dict[str, object]:
    """Plays all faults in turn, `rounds` times."""
    reports: dict[str, list[FaultReport]] = {}
    with tempfile.TemporaryDirectory() as folder, running_ray_nodes(_GPUS, _GPUS, _GPUS) as nodes:
        for _ in range(rounds):
            for name, fault, mend in _faults(nodes):
                reports.setdefault(name, []).append(await _play(name, fault, nodes, Path(folder)))
                mend()
    return {
        "configuration": {"tp": _TP, "pp": _PP, "nodes": 3, "gpus_of_a_node": _GPUS, "answers_at_once": len(PROMPTS)},
        "faults": {name: _figures(seen) for name, seen in reports.items()},
    }


async def _play(name: str, fault: Callable[[], None], nodes: RayNodes, folder: Path) -> FaultReport:
    """One fault of a replica that has never failed: one that fails again and again is started with longer pauses."""
    with sharded_cluster(nodes, folder, tp=_TP, pp=_PP) as cluster:
        async with AsyncClient(cluster.endpoint, patience_s=_PATIENCE_S) as client:
            expected = [heard.ids for heard in await answers(client)]
            report = await broken_answers(client, cluster, fault)
            shapes = ready_shapes(cluster)
    if [heard.ids for heard in report.answers] != expected:
        raise SystemExit(f"{name}: the answers are others than the undisturbed ones")
    if shapes != [f"tp={_TP} pp={_PP}"]:
        raise SystemExit(f"{name}: afterwards the replica has the shape {shapes}")
    return report


def _faults(nodes: RayNodes) -> list[tuple[str, Callable[[], None], Callable[[], object]]]:
    """Name, what breaks, and what mends."""
    lost: list[RayNode] = []

    def lose_machine() -> None:
        lost.append(nodes.node_without_a_leader())
        lost[-1].kill_raylet()

    return [
        ("rank killed", lambda: kill(nodes.ranks()[-1]), lambda: None),
        ("rank stopped", lambda: stop(nodes.ranks()[0]), lambda: None),
        ("leader killed", lambda: kill(nodes.leaders()[0]), lambda: None),
        ("machine lost", lose_machine, lambda: nodes.add(lost[-1].ip, num_gpus=_GPUS)),
        ("head killed", nodes.kill_head, nodes.start_head),
    ]


def _figures(reports: list[FaultReport]) -> dict[str, object]:
    """Each round's seconds, and their median."""
    figures: dict[str, object] = {}
    for name in ("detected_s", "longest_gap_s", "served_s"):
        seconds = [round(s, 2) for report in reports if (s := getattr(report, name)) is not None]
        if seconds:
            figures[name] = {"median": round(statistics.median(seconds), 2), "rounds": seconds}
    return figures


if __name__ == "__main__":
    main()
