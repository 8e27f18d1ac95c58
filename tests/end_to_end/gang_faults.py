"""A sharded replica over several Ray nodes, broken in the middle of its answers; and how long it took to come back."""

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from shardline import AsyncClient
from shardline.results import Tokens
from tests.bad_input.tiny_model import write_tiny_model
from tests.end_to_end.ray_nodes import OPEN, RayNodes
from tests.end_to_end.served_cluster import ServedCluster, served_cluster
from tests.end_to_end.streams import Heard

RESOURCE = "GPU"
PROMPTS = ("abc", "tell me", "a b a b", "once")
MAX_TOKENS = 160
_BREAK_AFTER = 15  # tokens of the first answer
REPLAN_AFTER_S = 4.0
_NUM_LAYERS = 4
_ENDS = re.compile(r" failed|: waits for room")  # what serve says of a replica whose end the controller has seen


@dataclass(slots=True)
class FaultReport:
    """What clients and operator saw of one fault, in seconds after it."""

    answers: list[Heard]
    detected_s: float | None  # until the controller had seen the end of the replica; None: nothing ended
    longest_gap_s: float  # without a token in any answer
    served_s: float | None = None  # until the first token after that end

    @property
    def told(self) -> str:
        """For people."""
        times = {"detected": self.detected_s, "longest gap": self.longest_gap_s, "served again": self.served_s}
        return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in times.items() if seconds is not None)


@dataclass(slots=True)
class _Clock:
    """When tokens came, of all answers together."""

    times: list[float] = field(default_factory=list)

    def gap_after(self, instant: float) -> tuple[float, float]:
        """The longest pause that ends after an instant, and when it ended."""
        ends = [t for t in self.times if t >= instant]
        starts = [max([instant, *[t for t in self.times if t < end]]) for end in ends]
        return max(((end - start, end) for start, end in zip(starts, ends, strict=True)), default=(0.0, instant))


@contextmanager
def sharded_cluster(
    nodes: RayNodes, folder: Path, *, tp: int, pp: int, more: tuple[str, ...] = ()
) -> Iterator[ServedCluster]:
    """The tiny model in float64 on the plain kernels: its tokens do not depend on who computes them, in which shape."""
    arguments = (
        *(
            str(write_tiny_model(folder / "tiny", num_layers=_NUM_LAYERS)),
            "--dtype",
            "float64",
            "--kernels",
            "reference",
        ),
        *("--max-model-len", "200", "--kv-cache-tokens", "2048", "--block-size", "16"),
        *("--ray-address", nodes.plan.address, "--ray-node-ip", nodes.nodes[0].ip, "--rank-resource", RESOURCE),
        *("--tensor-parallel-size", str(tp), "--pipeline-parallel-size", str(pp)),
        *("--replan-after", str(REPLAN_AFTER_S), "--replan-back-after", "3"),
    )
    with served_cluster(*arguments, environment=OPEN) as cluster:
        yield cluster


async def answers(client: AsyncClient) -> list[Heard]:
    """An answer to each prompt, at the same time."""
    clock = _Clock()
    return list(await asyncio.gather(*(_answer(client, prompt, clock) for prompt in PROMPTS)))


async def broken_answers(client: AsyncClient, cluster: ServedCluster, break_it: Callable[[], None]) -> FaultReport:
    """The same, with something broken when the first of them has begun."""
    clock, num_failed = _Clock(), len(_ENDS.findall(cluster.log))
    hearing = [asyncio.create_task(_answer(client, prompt, clock)) for prompt in PROMPTS]
    await _until(lambda: len(clock.times) >= _BREAK_AFTER)
    broken_at = time.monotonic()
    await asyncio.to_thread(break_it)
    watching = asyncio.create_task(_detected_at(cluster, num_failed))
    heard = list(await asyncio.gather(*hearing))
    watching.cancel()
    ended_at = (await asyncio.gather(watching, return_exceptions=True))[0]
    gap_s, served_at = clock.gap_after(broken_at)
    if not isinstance(ended_at, float):
        return FaultReport(answers=heard, detected_s=None, longest_gap_s=gap_s)
    return FaultReport(
        answers=heard, detected_s=ended_at - broken_at, longest_gap_s=gap_s, served_s=served_at - broken_at
    )


def replicas(cluster: ServedCluster) -> list[dict[str, object]]:
    """What `shardline status` tells of each replica."""
    told = cluster.command("status", "--name", cluster.name, "--json")
    (deployment,) = json.loads(told.stdout)["deployments"]
    return list(deployment["replicas"])


def ready_shapes(cluster: ServedCluster) -> list[object]:
    """Of the replicas that serve."""
    return [replica["shape"] for replica in replicas(cluster) if replica["state"] == "READY"]


def kill(pid: int) -> None:
    """As a machine that is out of memory does."""
    os.kill(pid, signal.SIGKILL)


def stop(pid: int) -> None:
    """It lives, and does nothing any more."""
    os.kill(pid, signal.SIGSTOP)


async def _answer(client: AsyncClient, prompt: str, clock: _Clock) -> Heard:
    heard = Heard()
    async with client.stream(prompt, max_tokens=MAX_TOKENS, temperature=0.0, ignore_eos=True) as stream:
        async for event in stream:
            heard.take(event)
            if isinstance(event, Tokens):
                clock.times.append(time.monotonic())
    return heard


async def _detected_at(cluster: ServedCluster, before: int) -> float:
    await _until(lambda: len(_ENDS.findall(cluster.log)) > before)
    return time.monotonic()


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # logs and clocks have no event
        await asyncio.sleep(0.005)
