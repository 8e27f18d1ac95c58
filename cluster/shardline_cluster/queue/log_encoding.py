"""How tokens and log-probabilities lie in the log: fixed widths, so that an offset is a multiplication."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

ID_BYTES = 4
ENTRY_BYTES = 8  # uint32 id, float32 log-probability


@dataclass(frozen=True, slots=True)
class LoggedLogprobs:
    """Log-probabilities at one position."""

    chosen: float
    top_ids: tuple[int, ...]
    top: tuple[float, ...]


def pack_ids(ids: Sequence[int]) -> bytes:
    """Token ids to uint32 little-endian."""
    return struct.pack(f"<{len(ids)}I", *ids)


def unpack_ids(packed: bytes) -> tuple[int, ...]:
    """The inverse of `pack_ids`."""
    return struct.unpack(f"<{len(packed) // ID_BYTES}I", packed)


def logprobs_width(num_logprobs: int) -> int:
    """Bytes for one position: the chosen token, then the likeliest ones."""
    return ENTRY_BYTES * (1 + num_logprobs)


def pack_logprobs(
    chosen_id: int, chosen: float, top_ids: Sequence[int], top: Sequence[float], *, num_logprobs: int
) -> bytes:
    """One position; where fewer than `num_logprobs` are known, the rest repeats the last id with minus infinity."""
    missing = num_logprobs - len(top_ids)
    ids = [chosen_id, *top_ids, *([chosen_id] * missing)]
    values = [chosen, *top, *([float("-inf")] * missing)]
    return b"".join(struct.pack("<If", i, v) for i, v in zip(ids, values, strict=True))


def unpack_logprobs(packed: bytes, num_logprobs: int) -> tuple[LoggedLogprobs, ...]:
    """All positions of a packed run."""
    width = logprobs_width(num_logprobs)
    return tuple(_unpack_position(packed[at : at + width]) for at in range(0, len(packed), width))


def _unpack_position(packed: bytes) -> LoggedLogprobs:
    entries = list(struct.iter_unpack("<If", packed))
    known = [(i, v) for i, v in entries[1:] if v != float("-inf")]
    return LoggedLogprobs(entries[0][1], tuple(i for i, _ in known), tuple(v for _, v in known))
