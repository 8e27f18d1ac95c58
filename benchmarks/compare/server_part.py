"""Through the streaming servers, in turns: ours with router, log and all; llama-server and vLLM with their HTTP APIs.

Format by format, since a server for each would not fit small machines. vLLM plays in every format's rounds with the
bf16 weights that it has, so that all comparisons are made side by side.
"""

import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.compare.effort import Effort
from benchmarks.compare.peer_folder import PeerFolder
from benchmarks.compare.points import CONCURRENCIES, SERVER_POINTS, Part, Point, rotated
from benchmarks.compare.process_trees import NoiseWatch
from benchmarks.compare.samples import Sample
from benchmarks.compare.servers import RunningServer, ServerPlan, llama_server, our_server, running, vllm_server
from benchmarks.compare.stream_load import load_once


@dataclass(frozen=True, slots=True)
class ServerPart:
    """Measures every server point in every round. Who does not play is stopped, or, ours, without work."""

    folder: PeerFolder
    formats: Sequence[str]
    rounds: int
    effort: Effort
    threads: int
    seed: int

    def samples(self) -> Iterator[Sample]:
        """Every figure as soon as it is measured. Rounds are numbered through all formats."""
        with contextlib.ExitStack() as stack:
            lasting = (
                [stack.enter_context(running(vllm_server(self.folder, threads=self.threads)))]
                if self.folder.has_vllm
                else []
            )
            for block, name in enumerate(self.formats):
                yield from self._format(name, lasting, first_round=block * self.rounds)

    def _format(self, name: str, lasting: Sequence[RunningServer], *, first_round: int) -> Iterator[Sample]:
        llama_plan = self._best_llama(name)
        with running(our_server(self.folder, name)) as ours, running(llama_plan) as llama:
            servers = [ours, llama, *lasting]
            for number in range(first_round, first_round + self.rounds):
                for point in SERVER_POINTS:
                    for server in rotated(servers, number):
                        yield self._sample(server, point, number)

    def _best_llama(self, name: str) -> ServerPlan:
        """The build of llama.cpp that answers most streams at once the fastest, tried before anything is measured."""
        builds = self.folder.llama_builds
        plans = [llama_server(self.folder, name, threads=self.threads, build=build) for build in builds]
        return plans[0] if len(plans) == 1 else max(plans, key=self._trial_tokens_per_s)

    def _trial_tokens_per_s(self, plan: ServerPlan) -> float:
        with running(plan) as server, server.turn():
            return load_once(server, random.Random(self.seed), size=CONCURRENCIES[-1], laps=1)["tokens_per_s"]

    def _sample(self, server: RunningServer, point: Point, number: int) -> Sample:
        rng = random.Random(f"{self.seed} {number} {point} {server.plan.contender}")
        with server.turn():
            watch = NoiseWatch()
            figures = load_once(server, rng, size=point.size, laps=self.effort.stream_laps(point))
            noise = watch.noise()
        return Sample(
            part=Part.SERVERS.value,
            point=str(point),
            format=server.plan.format,
            contender=server.plan.contender,
            round=number,
            figures={name: round(value, 3) for name, value in figures.items()},
            noise=noise,
            build=server.plan.build,
        )
