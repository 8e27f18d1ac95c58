from pathlib import Path
from typing import Any

import pytest

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.text.detokenizer import Detokenizer
from shardline_workers.text.hf_tokenizer import HfTokenizer, load_hf_tokenizer
from tests.workers.text.tiny_vocabulary import (
    ENTRIES,
    USER_DEFINED,
    bos_template,
    byte_level_json,
    entry_id,
    write_json,
)


def loaded(tmp_path: Path, content: Any = None, *, bos_token: str | None = "<s>") -> HfTokenizer:
    path = write_json(tmp_path / "tokenizer.json", byte_level_json() if content is None else content)
    return load_hf_tokenizer(path, bos_token=bos_token)


def sentencepiece_json() -> dict[str, Any]:
    letters = [f"<0x{byte:02X}>" for byte in range(256)] + list("▁helo") + ["he", "ll", "hell", "hello", "▁hello"]
    vocab = {entry: index for index, entry in enumerate(["<unk>", "<s>", *letters])}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    replace = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    return {
        "version": "1.0",
        "added_tokens": [{"id": 1, "content": "<s>"} | special],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "vocab": vocab,
            "merges": ["h e", "l l", "he ll", "hell o", "▁ hello"],
            "byte_fallback": True,
            "unk_token": "<unk>",
        },
    }


@pytest.mark.parametrize("content", [byte_level_json(), sentencepiece_json()])
def test_a_character_that_several_tokens_share_comes_out_as_raw_bytes(content: Any, tmp_path: Path) -> None:
    tokenizer = loaded(tmp_path, content)

    ids = tokenizer.encode("hello🚀 hello", add_special_tokens=False)

    assert [tokenizer.token_bytes(token_id, skip_special=True) for token_id in ids] == [
        b"hello",
        *(bytes([byte]) for byte in "🚀".encode()),
        b" hello",
    ]
    assert Detokenizer(tokenizer, skip_special=True).feed(ids) == "hello🚀 hello"


def test_special_tokens_in_a_text_are_parsed_and_can_be_hidden(tmp_path: Path) -> None:
    tokenizer = loaded(tmp_path)

    ids = tokenizer.encode(f"<s>hello{USER_DEFINED}<|end|>", add_special_tokens=False)

    assert ids == [0, entry_id("hello"), entry_id(USER_DEFINED), 1]
    assert tokenizer.special_ids == {0, 1}
    assert [tokenizer.token_bytes(token_id, skip_special=True) for token_id in ids] == [b"", b"hello", b"<think>", b""]
    assert tokenizer.token_bytes(0, skip_special=False) == b"<s>"


def test_bos_stands_once_however_the_text_begins(tmp_path: Path) -> None:
    tokenizer = loaded(tmp_path, byte_level_json(post_processor=bos_template()))
    hello = entry_id("hello")

    assert tokenizer.encode("hello", add_special_tokens=True) == [0, hello]
    assert tokenizer.encode("<s>hello", add_special_tokens=True) == [0, hello]
    assert tokenizer.encode("<s>hello", add_special_tokens=False) == [0, hello]
    assert tokenizer.encode("hello", add_special_tokens=False) == [hello]


def test_a_tokenizer_without_a_post_processor_writes_no_bos(tmp_path: Path) -> None:
    assert loaded(tmp_path).encode("hello", add_special_tokens=True) == [entry_id("hello")]


def test_ids_without_an_entry_have_no_bytes(tmp_path: Path) -> None:
    tokenizer = loaded(tmp_path)

    assert tokenizer.vocab_size == len(ENTRIES)
    assert tokenizer.token_bytes(len(ENTRIES), skip_special=False) == b""
    assert tokenizer.token_bytes(1 << 40, skip_special=False) == b""


def test_truncation_that_a_file_asks_for_is_not_done(tmp_path: Path) -> None:
    truncation = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    tokenizer = loaded(tmp_path, byte_level_json() | {"truncation": truncation})

    assert len(tokenizer.encode("abcdef", add_special_tokens=True)) == 6


def test_a_lone_surrogate_is_replaced(tmp_path: Path) -> None:
    tokenizer = loaded(tmp_path)

    assert tokenizer.encode("a\ud800", add_special_tokens=False) == tokenizer.encode("a?", add_special_tokens=False)


def test_a_decoder_that_cannot_be_streamed_is_refused_by_name(tmp_path: Path) -> None:
    decoder = {"type": "WordPiece", "prefix": "##", "cleanup": True}

    with pytest.raises(ModelFileError, match=r"WordPiece.*ByteLevel"):
        loaded(tmp_path, byte_level_json() | {"decoder": decoder})


def unknown_bos() -> dict[str, Any]:
    """What the library says to it is no Exception."""
    template = bos_template()
    return template | {"special_tokens": {}}


def test_a_post_processor_that_writes_ids_of_no_vocabulary_is_refused(tmp_path: Path) -> None:
    template = bos_template()
    template["special_tokens"]["<s>"]["ids"] = [2**32 - 1]

    with pytest.raises(ModelFileError, match=rf"post-processor .* found 4294967295, expected ids below {len(ENTRIES)}"):
        loaded(tmp_path, byte_level_json(post_processor=template))


def test_a_vocabulary_with_gaps_has_room_for_its_highest_id(tmp_path: Path) -> None:
    content = byte_level_json()
    content["model"]["vocab"]["hello"] = 1000
    tokenizer = loaded(tmp_path, content)

    ids = tokenizer.encode("hello", add_special_tokens=False)

    assert ids == [1000]
    assert tokenizer.vocab_size == 1001
    assert tokenizer.token_bytes(1000, skip_special=False) == b"hello"


@pytest.mark.parametrize(
    "content",
    [{}, [1], {"model": {"type": "Nonsense"}}, byte_level_json(post_processor=unknown_bos())],
    ids=["empty", "list", "unknown model", "unknown BOS"],
)
def test_a_broken_file_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="not a tokenizer"):
        loaded(tmp_path, content)
