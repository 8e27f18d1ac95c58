"""What the options of an engine may be: the one place for flags, for the Admin service and for whoever else asks."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from shardline_cluster.fleet.deployment import EngineOptions
from shardline_workers.parallel.parallel_plan import possible_ep

SIMULATED = "simulated"
LONGEST_TEXT_BYTES = 1 << 20  # of a chat template or a text to be replayed: they lie in Redis
_DEVICE = re.compile(r"cpu|cuda(:\d+)?")
DEVICES = "cpu, cuda, or cuda:N for one GPU of several"
_RESOURCE = re.compile(r"[A-Za-z0-9_.:-]{0,64}")
_MOST = 2**31
MOST_RANKS = 4096
LEAST_BLOCK_TOKENS = 32  # of any kernels' own choice


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
        "tensor_parallel_size": NumberBounds(1, MOST_RANKS),
        "pipeline_parallel_size": NumberBounds(1, MOST_RANKS),
        "expert_parallel_size": NumberBounds(1, MOST_RANKS),
        "data_parallel_size": NumberBounds(1, MOST_RANKS),
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
    """Every field that is out of bounds; where none is, those that contradict another one.

    What depends on kernels or memory is told by the engine itself, when it loads.
    """
    yield from list(_out_of_bounds(options)) or _contradictions(options)


def _out_of_bounds(options: EngineOptions) -> Iterator[WrongOption]:
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
    resource = options.rank_resource or ""
    if not _RESOURCE.fullmatch(resource):
        what = "but must have at most 64 letters, digits, dots, colons, dashes and underscores"
        yield WrongOption("rank_resource", f"is {resource[:80]!r}, {what}")


def cache_tokens(options: EngineOptions) -> int | None:
    """What the KV cache that was asked for holds, in whole blocks; None: as much as memory allows."""
    tokens = options.kv_cache_tokens
    return None if tokens is None else tokens - tokens % _block_tokens(options)


def _contradictions(options: EngineOptions) -> Iterator[WrongOption]:
    tokens, block, longest = options.kv_cache_tokens, _block_tokens(options), options.max_model_len
    if tokens is not None and tokens < block:
        remedy = "raise it, or leave it out to get what memory allows"
        yield WrongOption("kv_cache_tokens", f"is {tokens}, but must be at least a block of {block} tokens: {remedy}")
    if tokens is not None and longest is not None and longest > tokens:
        remedy = f"lower the first to {tokens} or less, or raise the second"
        yield WrongOption("max_model_len", f"is {longest}, but kv_cache_tokens is {tokens}: {remedy}")
    batched, sequences = options.max_num_batched_tokens, options.max_num_seqs
    if batched is not None and batched < sequences:
        remedy = "a step must hold a token of each running sequence; raise the first, or lower the second"
        yield WrongOption("max_num_batched_tokens", f"is {batched}, less than max_num_seqs = {sequences}: {remedy}")
    yield from _shape_contradictions(options)
    yield from _simulated_contradictions(options)


def _shape_contradictions(options: EngineOptions) -> Iterator[WrongOption]:
    tp, dp, ep = options.tensor_parallel_size, options.data_parallel_size, options.expert_parallel_size
    if options.enable_expert_parallel and ep not in (None, 1, (tp or 1) * (dp or 1)):
        remedy = "it makes expert_parallel_size tensor_parallel_size * data_parallel_size; leave one of them out"
        yield WrongOption("enable_expert_parallel", f"is true, but expert_parallel_size is {ep}: {remedy}")
    elif tp is not None and dp is not None and ep is not None and ep not in possible_ep(tp=tp, dp=dp):
        sizes = list(map(str, possible_ep(tp=tp, dp=dp)))
        allowed = f"one of {', '.join(sizes)}" if len(sizes) > 1 else sizes[0]
        bound = f"with tensor_parallel_size {tp} and data_parallel_size {dp} it must be {allowed}"
        yield WrongOption("expert_parallel_size", f"is {ep}, but {bound}")
    if options.device.startswith("cuda:") and (tp, options.pipeline_parallel_size, dp) != (1, 1, 1):
        remedy = "ranks take a GPU each; say cuda"
        yield WrongOption("device", f"is {options.device}, but the replica has several ranks: {remedy}")


def _simulated_contradictions(options: EngineOptions) -> Iterator[WrongOption]:
    plain = EngineOptions()
    if options.engine == SIMULATED:
        if options.simulated_tokens == "replay" and not options.simulated_replay_text:
            yield WrongOption(
                "simulated_tokens", "is 'replay', but there is nothing to replay: set simulated_replay_text"
            )
        return
    for name in ("simulated_tokens", "simulated_step_s", "simulated_replay_text"):
        value = getattr(options, name)
        if value != getattr(plain, name):
            remedy = f"leave it out, or take engine {SIMULATED}"
            yield WrongOption(name, f"is {str(value)[:80]!r}, but only the simulated engine obeys it: {remedy}")


def _block_tokens(options: EngineOptions) -> int:
    """Tokens that are kept together. The simulated engine has no blocks."""
    return 1 if options.engine == SIMULATED else options.block_size or LEAST_BLOCK_TOKENS
