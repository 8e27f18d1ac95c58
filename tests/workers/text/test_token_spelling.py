from typing import Any

import pytest

from shardline_workers.text.token_spelling import (
    TokenSpelling,
    byte_level_alphabet,
    byte_level_bytes,
    sentencepiece_bytes,
    spelling_of,
)


def test_the_byte_level_alphabet_spells_every_byte_once() -> None:
    alphabet = byte_level_alphabet()

    assert sorted(alphabet.values()) == list(range(256))
    assert (alphabet["Ġ"], alphabet["Ċ"], alphabet["a"]) == (32, 10, 97)


@pytest.mark.parametrize(
    ("spelling", "entry", "spelled"),
    [
        (byte_level_bytes, "Ġhi", b" hi"),
        (byte_level_bytes, "ðŁļ", b"\xf0\x9f\x9a"),
        (byte_level_bytes, "a→", "a→".encode()),
        (sentencepiece_bytes, "▁hi", b" hi"),
        (sentencepiece_bytes, "<0xF0>", b"\xf0"),
        (sentencepiece_bytes, "<0xF>", b"<0xF>"),
    ],
)
def test_an_entry_becomes_its_bytes(spelling: TokenSpelling, entry: str, spelled: bytes) -> None:
    assert spelling(entry) == spelled


@pytest.mark.parametrize(
    ("decoder", "spelling"),
    [
        ({"type": "ByteLevel"}, byte_level_bytes),
        ({"type": "Sequence", "decoders": [{"type": "Replace"}, {"type": "ByteFallback"}]}, sentencepiece_bytes),
        ({"type": "Metaspace"}, sentencepiece_bytes),
        ({"type": "WordPiece"}, None),
        (None, None),
    ],
)
def test_the_decoder_tells_the_spelling(decoder: dict[str, Any] | None, spelling: TokenSpelling | None) -> None:
    assert spelling_of(decoder) is spelling
