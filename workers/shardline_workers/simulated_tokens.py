"""Which tokens the simulated engine speaks, in three modes, and the auditor of one of them.

Ids below 256 are bytes of text, as the tokenizer of `text/byte_tokenizer.py` has them. Audit ids are 32 bits wide
and carry a printable byte lowest, so that they can be streamed as text as well:

    bit 31      30 … 16                 15 … 8           7 … 0
        1 | tag of the generation | link (high) | link (low), a printable byte

The link is a hash of the tag, the parent id, the sequence, the position and the prompt: a token fits only behind the
very token behind which it was generated, and two generations of one position differ in their tags.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from shardline_workers.engine import EngineRequest

FIRST_PRINTABLE, NUM_PRINTABLE = 32, 95
AUDIT_BIT = 1 << 31
AUDIT_VOCABULARY = 1 << 32
BYTE_VOCABULARY = 512


class TokenMode(Enum):
    """What the simulated engine says."""

    SAME = "same"  # a function of prompt, seed, sequence and position
    PER_INCARNATION = "per-incarnation"  # audit ids: every generation says something else
    REPLAY = "replay"  # a text that was given at start


class SequenceTokens(Protocol):
    """The tokens of one sequence."""

    def next_id(self, position: int, parent: int | None) -> int:
        """The token at `position` (0 is the first generated one) behind `parent` (None for the prompt)."""
        ...


@dataclass(frozen=True, slots=True)
class SameTokens:
    """Printable bytes that depend on nothing but prompt, seed, sequence and position. Never ends by itself."""

    root: bytes

    def next_id(self, position: int, parent: int | None) -> int:
        """The token at `position`; `parent` does not matter."""
        return _printable(_hash(self.root, struct.pack("<Q", position)))


@dataclass(frozen=True, slots=True)
class AuditTokens:
    """Ids that tell their generation and their parent."""

    root: bytes
    tag: int  # 15 bits

    def next_id(self, position: int, parent: int | None) -> int:
        """The audit id behind `parent`."""
        return AUDIT_BIT | self.tag << 16 | _link(self.root, tag=self.tag, position=position, parent=parent)


@dataclass(frozen=True, slots=True)
class ReplayTokens:
    """The bytes of a text, then `end_id` where the request stops at it, else the text again."""

    text: bytes
    end_id: int | None

    def next_id(self, position: int, parent: int | None) -> int:
        """The byte at `position`; `parent` does not matter."""
        if self.end_id is not None:
            return self.text[position] if position < len(self.text) else self.end_id
        return self.text[position % len(self.text)]


def sequence_tokens(mode: TokenMode, request: EngineRequest, sequence: int, *, replay_text: bytes) -> SequenceTokens:
    """How one sequence of a request speaks in this mode."""
    root = prompt_root(request.prompt_ids, sequence)
    if mode is TokenMode.SAME:
        return SameTokens(_hash(root, struct.pack("<Q", request.sampling.seed)))
    if mode is TokenMode.PER_INCARNATION:
        return AuditTokens(root, generation_tag(request.generation))
    return ReplayTokens(replay_text, min((i for i in request.sampling.stop_token_ids if i > 255), default=None))


def prompt_root(prompt_ids: Sequence[int], sequence: int) -> bytes:
    """What stands before the first token of a sequence."""
    return _hash(struct.pack(f"<{len(prompt_ids)}I", *prompt_ids), struct.pack("<I", sequence))


def generation_tag(generation: str) -> int:
    """15 bits by which generations are told apart."""
    return int.from_bytes(_hash(generation.encode())[:2], "little") & 0x7FFF


def check_chain(prompt_ids: Sequence[int], ids: Sequence[int], *, sequence: int = 0) -> int | None:
    """The offset of the first audit id that was not generated behind the one before it, or None: the text is unmixed.

    Different generations may follow each other, since a request moves; each must go on where the one before stopped.
    """
    root = prompt_root(prompt_ids, sequence)
    parent: int | None = None
    for position, token_id in enumerate(ids):
        tag = token_id >> 16 & 0x7FFF
        if token_id != AuditTokens(root, tag).next_id(position, parent):
            return position
        parent = token_id
    return None


def _link(root: bytes, *, tag: int, position: int, parent: int | None) -> int:
    link = _hash(root, struct.pack("<HQQ", tag, position, AUDIT_VOCABULARY if parent is None else parent))
    return link[7] << 8 | _printable(link)


def _printable(hashed: bytes) -> int:
    return FIRST_PRINTABLE + int.from_bytes(hashed[:4], "little") % NUM_PRINTABLE


def _hash(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=8).digest()
