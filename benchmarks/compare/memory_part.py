"""Memory at the same capacity of the KV cache, after it was filled once: of the engine, and of everything that serves.

`weights and KV` is what our engine's process grew by from before loading to after filling, beside all of llama-server
(which holds little else). `system` is the proportional set size of all processes of a server.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.compare.engine_process import engine_process
from benchmarks.compare.peer_folder import PeerFolder
from benchmarks.compare.points import KV_CACHE_TOKENS, LLAMA, MAX_SEQS, OURS, Part
from benchmarks.compare.samples import Sample
from benchmarks.compare.servers import ServerPlan, llama_server, our_server, running, vllm_server
from benchmarks.compare.stream_load import fill
from benchmarks.process_tree import pss_mib

_OUTPUT_TOKENS = 16
_ENGINE, _SYSTEM = "weights and KV", "system"


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """Measures once: memory does not depend on how busy the machine is."""

    folder: PeerFolder
    formats: Sequence[str]
    threads: int
    seed: int

    def samples(self) -> Iterator[Sample]:
        """Every figure as soon as it is measured, in MiB."""
        for name in self.formats:
            with engine_process(self.folder.model(name), seed=self.seed) as engine:
                told = engine.ask("memory")
            yield _sample(_ENGINE, name, OURS, told["filled_mib"] - told["before_mib"])
            yield _sample(_SYSTEM, name, OURS, self._system(our_server(self.folder, name)))
            # Without mapping the file: it packs weights anew, and a mapped file would stay beside them.
            llama = self._system(llama_server(self.folder, name, threads=self.threads, load_mode="none"))
            yield _sample(_ENGINE, name, LLAMA, llama)
            yield _sample(_SYSTEM, name, LLAMA, llama)
        if self.folder.has_vllm:
            plan = vllm_server(self.folder, threads=self.threads)
            yield _sample(_SYSTEM, plan.format, plan.contender, self._system(plan))

    def _system(self, plan: ServerPlan) -> float:
        prompt_tokens = KV_CACHE_TOKENS // MAX_SEQS - 2 * _OUTPUT_TOKENS
        with running(plan) as server, server.turn():
            rng = random.Random(self.seed)
            fill(server, rng, size=MAX_SEQS, prompt_tokens=prompt_tokens, output_tokens=_OUTPUT_TOKENS)
            return pss_mib(server.pids)


def _sample(point: str, format_name: str, contender: str, mib: float) -> Sample:
    return Sample(
        part=Part.MEMORY.value,
        point=point,
        format=format_name,
        contender=contender,
        round=0,
        figures={"mib": round(mib, 1)},
    )
