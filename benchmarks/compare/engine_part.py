"""Engine to engine: ours through the `Engine` protocol, llama.cpp's through its own measuring tools, in turns."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.compare import llama_tools
from benchmarks.compare.effort import Effort
from benchmarks.compare.engine_process import EngineProcess, engine_process
from benchmarks.compare.peer_folder import PeerFolder
from benchmarks.compare.points import ENGINE_POINTS, LLAMA, OURS, Part, Point, Work, rotated
from benchmarks.compare.process_trees import NoiseWatch
from benchmarks.compare.samples import Sample

Result = TypeVar("Result")

TOOL_WITHIN_S = 300.0
_ATTEMPTS = 3  # llama.cpp prints from a thread of its own, and sometimes ends before that has printed the result


@dataclass(frozen=True, slots=True)
class _Rate:
    """Tokens a second, and which build reached them."""

    tokens_per_s: float
    build: str = ""


class EnginePart:
    """Measures every engine point in every round; our engines stay loaded, and sleep while llama.cpp runs.

    Where there are several builds of llama.cpp, the first round tries all, and the best of each point plays on.
    """

    def __init__(
        self, folder: PeerFolder, formats: Sequence[str], *, rounds: int, effort: Effort, threads: int, seed: int
    ) -> None:
        self._folder = folder
        self._formats = formats
        self._rounds = rounds
        self._effort = effort
        self._threads = threads
        self._seed = seed
        self._best_builds: dict[tuple[str, Point], str] = {}

    def samples(self) -> Iterator[Sample]:
        """Every figure as soon as it is measured."""
        with contextlib.ExitStack() as stack:
            engines = {
                name: stack.enter_context(engine_process(self._folder.model(name), seed=self._seed))
                for name in self._formats
            }
            for number in range(self._rounds):
                for name in self._formats:
                    for point in ENGINE_POINTS:
                        yield from self._turns(number, name, point, engine=engines[name])

    def _turns(self, number: int, name: str, point: Point, *, engine: EngineProcess) -> Iterator[Sample]:
        measures: dict[str, Callable[[], _Rate]] = {
            OURS: lambda: self._ours(engine, point),
            LLAMA: lambda: self._llama(name, point),
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
                figures={"tokens_per_s": round(rate.tokens_per_s, 2)},
                noise=watch.noise(),
                build=rate.build,
            )

    def _ours(self, engine: EngineProcess, point: Point) -> _Rate:
        answer = engine.ask(point.work.value, size=point.size, least_s=self._effort.least_s)
        return _Rate(answer["tokens_per_s"])

    def _llama(self, name: str, point: Point) -> _Rate:
        known = self._best_builds.get((name, point))
        builds = self._folder.llama_builds if known is None else (known,)
        rates = [_Rate(self._llama_tokens_per_s(build, name, point), build) for build in builds]
        best = max(rates, key=lambda rate: rate.tokens_per_s)
        self._best_builds[name, point] = best.build
        return best

    def _llama_tokens_per_s(self, build: str, name: str, point: Point) -> float:
        """Where both of its tools can measure a point, the better figure counts."""
        model, threads = self._folder.model(name), self._threads
        repetitions = self._effort.llama_repetitions(point)
        rates = []
        if point.work is Work.PREFILL or point.size == 1:
            tool = self._folder.llama("llama-bench", build)
            command = llama_tools.bench_command(tool, model, point, threads=threads, repetitions=repetitions)
            rates.append(tool_result(command, llama_tools.bench_tokens_per_s))
        if point.work is Work.DECODE:
            tool = self._folder.llama("llama-batched-bench", build)
            command = llama_tools.batched_command(tool, model, point, threads=threads, repetitions=repetitions)
            rates.append(tool_result(command, llama_tools.batched_decode_tokens_per_s))
        return max(rates)


def tool_result(command: list[str], parse: Callable[[str], Result]) -> Result:
    """What a tool measured; it is run again where it printed nothing.

    Raises:
        ToolOutputError: it failed, or never printed a result.
    """
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(llama_tools.ToolOutputError):
            return parse(tool_output(command))
    return parse(tool_output(command))


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
