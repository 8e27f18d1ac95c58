"""Perplexity of a fixed text on the same files: that speed was not bought with other answers.

The text is the first chapter of Lewis Carroll's "Alice's Adventures in Wonderland" (1865), in the public domain.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compare import llama_tools
from benchmarks.compare.engine_part import tool_result
from benchmarks.compare.engine_process import engine_process
from benchmarks.compare.peer_folder import PeerFolder
from benchmarks.compare.points import LLAMA, OURS, Part
from benchmarks.compare.samples import Sample

TEXT = Path(__file__).parent / "perplexity_text.txt"
CHUNK_TOKENS = 256
_BLOCK_SIZE = 32  # tokens: attention rounds by blocks, and figures of other sizes do not compare


class ChunksDifferError(RuntimeError):
    """The two sides cut the text into different numbers of chunks: they do not tokenise alike."""


@dataclass(frozen=True, slots=True)
class PerplexityPart:
    """Computes it once a format: it does not depend on how busy the machine is."""

    folder: PeerFolder
    formats: Sequence[str]
    threads: int

    def samples(self) -> Iterator[Sample]:
        """Ours and llama.cpp's, for each format.

        Raises:
            ChunksDifferError: they did not measure the same thing.
        """
        text = TEXT.read_text(encoding="utf-8")
        for name in self.formats:
            model = self.folder.model(name)
            with engine_process(model, seed=0, block_size=_BLOCK_SIZE) as engine:
                ours = engine.ask("perplexity", text=text, chunk_tokens=CHUNK_TOKENS)
            tool = self.folder.llama("llama-perplexity")
            command = llama_tools.perplexity_command(tool, model, TEXT, threads=self.threads, chunk_tokens=CHUNK_TOKENS)
            theirs, chunks = tool_result(command, llama_tools.perplexity)
            if chunks != ours["num_chunks"]:
                raise ChunksDifferError(f"{name}: ours are {ours['num_chunks']} chunks, llama.cpp's {chunks}")
            yield _sample(name, OURS, ours["perplexity"])
            yield _sample(name, LLAMA, theirs)


def _sample(format_name: str, contender: str, value: float) -> Sample:
    return Sample(
        part=Part.PERPLEXITY.value,
        point="fixed text",
        format=format_name,
        contender=contender,
        round=0,
        figures={"perplexity": value},
    )
