"""What is measured: formats, measuring points, and in which order contenders take turns. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

OURS = "shardline"
LLAMA = "llama.cpp"
VLLM = "vllm"

FORMAT_TO_PRECISION = {"Q4_0": "W4", "Q4_1": "W4", "Q8_0": "W8", "BF16": "bf16"}
PROMPT_TOKENS = 128  # before decoding, on every side
ENGINE_DECODE_TOKENS = 64  # so that decoding is measured in contexts of 128 to 192 tokens
SERVER_OUTPUT_TOKENS = 128
CONCURRENCIES = (1, 4, 16)
PREFILL_TOKENS = (512, 2048)
MAX_SEQS = 16
MAX_MODEL_LEN = 2304  # tokens: the longest prompt and a little more
KV_CACHE_TOKENS = 8192  # of every contender whose size can be given in tokens

Item = TypeVar("Item")


class Part(Enum):
    """The four comparisons."""

    ENGINES = "engines"
    SERVERS = "servers"
    PERPLEXITY = "perplexity"
    MEMORY = "memory"


class Work(Enum):
    """What a point makes an engine or a server do."""

    DECODE = "decode"
    PREFILL = "prefill"
    STREAM = "streams"


@dataclass(frozen=True, slots=True)
class Point:
    """One thing to measure: `decode 16` is decoding of 16 sequences, `prefill 512` a prompt of 512 tokens."""

    work: Work
    size: int  # sequences, or tokens of a prompt

    def __str__(self) -> str:
        return f"{self.work.value} {self.size}"


ENGINE_POINTS = (
    *(Point(Work.DECODE, size) for size in CONCURRENCIES),
    *(Point(Work.PREFILL, size) for size in PREFILL_TOKENS),
)
SERVER_POINTS = tuple(Point(Work.STREAM, size) for size in CONCURRENCIES)


def rotated(items: Sequence[Item], turn: int) -> tuple[Item, ...]:
    """The same items, each round begun by the next one, so that none always comes first or after the same neighbour.

    Every other lap goes backwards: with two items turns would otherwise always alternate.
    """
    if not items:
        return ()
    start = turn % len(items)
    turned = (*items[start:], *items[:start])
    return turned[::-1] if turn // len(items) % 2 else turned


def parse_formats(text: str) -> tuple[str, ...]:
    """Reads `Q4_0,BF16`.

    Raises:
        ValueError: one of them is none of ours.
    """
    formats = tuple(name.strip().upper() for name in text.split(",") if name.strip())
    unknown = [name for name in formats if name not in FORMAT_TO_PRECISION]
    if unknown or not formats:
        raise ValueError(
            f"formats are {text!r}; they must be some of {', '.join(FORMAT_TO_PRECISION)}, with commas between"
        )
    return formats
