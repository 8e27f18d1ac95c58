"""How a vocabulary spells bytes: from a token's entry to the bytes that it adds to a text.

Two spellings cover nearly every model. Both may cut a character: its bytes then come from several tokens.

- byte level (GPT-2 and its heirs): every character of an entry stands for one byte, `Ġ` for a space
- SentencePiece: an entry is text with `▁` for a space, and `<0xE2>` is one byte where the text was unknown
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

TokenSpelling = Callable[[str], bytes]

_SPACE = "▁"
_BYTE_ENTRY = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_level_bytes(entry: str) -> bytes:
    """The bytes of a byte-level entry. A character outside the alphabet, in a damaged vocabulary, stands for itself."""
    alphabet = byte_level_alphabet()
    try:
        return bytes([alphabet[character] for character in entry])
    except KeyError:
        return entry.encode("utf-8", "replace")


def sentencepiece_bytes(entry: str) -> bytes:
    """The bytes of a SentencePiece entry."""
    byte = _BYTE_ENTRY.fullmatch(entry)
    return bytes([int(byte[1], 16)]) if byte else entry.replace(_SPACE, " ").encode("utf-8", "replace")


@lru_cache(maxsize=1)
def byte_level_alphabet() -> Mapping[str, int]:
    """Character → byte, as GPT-2 has it: printable Latin-1 stands for itself, the rest follows from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    return MappingProxyType(alphabet | {chr(0x100 + index): byte for index, byte in enumerate(others)})


def spelling_of(decoder: Mapping[str, Any] | None) -> TokenSpelling | None:
    """The spelling that a `decoder` of tokenizer.json undoes; None for one that is neither of the two.

    What else such a decoder does belongs to whole texts (SentencePiece strips the very first space) and has no place
    in a text that goes on from a prompt.
    """
    kinds = set(_kinds(decoder or {}))
    if "ByteLevel" in kinds:
        return byte_level_bytes
    if "ByteFallback" in kinds or "Metaspace" in kinds:
        return sentencepiece_bytes
    return None


def _kinds(decoder: Mapping[str, Any]) -> Iterator[str]:
    yield str(decoder.get("type"))
    for part in decoder.get("decoders") or ():
        yield from _kinds(part)
