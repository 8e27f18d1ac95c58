"""What the options of an engine may be: the one place for flags, for the Admin service and for whoever else asks."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from shardline_cluster.fleet.deployment import EngineOptions

SIMULATED = "simulated"
LONGEST_TEXT_BYTES = 1 << 20  # of a chat template or a text to be replayed: they lie in Redis
_DEVICE = re.compile(r"cpu|cuda(:\d+)?")
DEVICES = "cpu, cuda, or cuda:N for one GPU of several"
_MOST = 2**31


@dataclass(frozen=True, slots=True)
class NumberBounds:
    """The least and the most that a number may be."""

    least: float
    most: float
    whole: bool = True


CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "engine": ("shardline", SIMULATED),
        "dtype": ("auto", "float32", "float64", "bfloat16", "float16"),
        "kernels": ("auto", "native", "reference"),
        "kv_cache_dtype": ("auto", "bfloat16", "int8"),
        "generation_config": ("auto", "none"),
        "simulated_tokens": ("same", "per-incarnation", "replay"),
    }
)
NUMBERS: Mapping[str, NumberBounds] = MappingProxyType(
    {
        "max_model_len": NumberBounds(1, _MOST),
        "max_num_seqs": NumberBounds(1, _MOST),
        "max_num_batched_tokens": NumberBounds(1, _MOST),
        "kv_cache_tokens": NumberBounds(1, _MOST),
        "block_size": NumberBounds(1, _MOST),
        "simulated_step_s": NumberBounds(0, 3_600, whole=False),
    }
)
TEXTS = ("chat_template", "simulated_replay_text")


@dataclass(frozen=True, slots=True)
class WrongOption:
    """A field that is out of bounds, and what is wrong with it."""

    field: str
    what: str  # "is 0, but must be 1 to …"


def wrong_options(options: EngineOptions) -> Iterator[WrongOption]:
    """Every field that is out of bounds."""
    for name, allowed in CHOICES.items():
        value = getattr(options, name)
        if value not in allowed:
            yield WrongOption(name, f"is {value[:80]!r}, but must be one of {', '.join(allowed)}")
    for name, bounds in NUMBERS.items():
        number = getattr(options, name)
        if number is not None and not bounds.least <= number <= bounds.most:
            yield WrongOption(name, f"is {number:g}, but must be {bounds.least:g} to {bounds.most:.0f}")
    for name in TEXTS:
        length = len((getattr(options, name) or "").encode())
        if length > LONGEST_TEXT_BYTES:
            yield WrongOption(name, f"has {length} bytes, but may have at most {LONGEST_TEXT_BYTES}")
    if not _DEVICE.fullmatch(options.device):
        yield WrongOption("device", f"is {options.device[:80]!r}, but must be {DEVICES}")
