"""Engine to engine: ours through the `Engine` protocol, llama.cpp's through its own measuring tools, in turns."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compare import llama_tools
from benchmarks.compare.effort import Effort
from benchmarks.compare.engine_process import EngineProcess, engine_process
from benchmarks.compare.peer_folder import PeerFolder
from benchmarks.compare.points import ENGINE_POINTS, LLAMA, OURS, Part, Point, Work, rotated
from benchmarks.compare.process_trees import NoiseWatch
from benchmarks.compare.samples import Sample

TOOL_WITHIN_S = 300.0


@dataclass(frozen=True, slots=True)
class EnginePart:
    """Measures every engine point in every round; our engines stay loaded, and sleep while llama.cpp runs."""

    folder: PeerFolder
    formats: Sequence[str]
    rounds: int
    effort: Effort
    threads: int
    seed: int

    def samples(self) -> Iterator[Sample]:
        """Every figure as soon as it is measured."""
        with contextlib.ExitStack() as stack:
            engines = {
                name: stack.enter_context(engine_process(self.folder.model(name), seed=self.seed))
                for name in self.formats
            }
            for number in range(self.rounds):
                for name in self.formats:
                    for point in ENGINE_POINTS:
                        yield from self._turns(number, name, point, engine=engines[name])

    def _turns(self, number: int, name: str, point: Point, *, engine: EngineProcess) -> Iterator[Sample]:
        measures: dict[str, Callable[[], float]] = {
            OURS: lambda: float(
                engine.ask(point.work.value, size=point.size, least_s=self.effort.least_s)["tokens_per_s"]
            ),
            LLAMA: lambda: self._llama(self.folder.model(name), point),
        }
        for contender in rotated(list(measures), number):
            watch = NoiseWatch()
            rate = measures[contender]()
            yield Sample(
                part=Part.ENGINES.value,
                point=str(point),
                format=name,
                contender=contender,
                round=number,
                figures={"tokens_per_s": round(rate, 2)},
                noise=watch.noise(),
            )

    def _llama(self, model: Path, point: Point) -> float:
        """Where both of its tools can measure a point, the better figure counts."""
        repetitions = self.effort.llama_repetitions(point)
        rates = []
        if point.work is Work.PREFILL or point.size == 1:
            tool = self.folder.llama("llama-bench")
            command = llama_tools.bench_command(tool, model, point, threads=self.threads, repetitions=repetitions)
            rates.append(llama_tools.bench_tokens_per_s(tool_output(command)))
        if point.work is Work.DECODE:
            tool = self.folder.llama("llama-batched-bench")
            command = llama_tools.batched_command(tool, model, point, threads=self.threads, repetitions=repetitions)
            rates.append(llama_tools.batched_decode_tokens_per_s(tool_output(command)))
        return max(rates)


def tool_output(command: list[str]) -> str:
    """What a tool prints, errors included.

    Raises:
        ToolOutputError: it failed.
    """
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=TOOL_WITHIN_S
    )
    if done.returncode != 0:
        raise llama_tools.ToolOutputError(f"{command} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout + done.stderr
