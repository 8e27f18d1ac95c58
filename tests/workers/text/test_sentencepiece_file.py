"""What SentencePiece itself made of hard texts (see sentencepiece/make.py), and files that are none."""

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.text.detokenizer import Detokenizer
from shardline_workers.text.hf_tokenizer import HfTokenizer
from shardline_workers.text.sentencepiece_file import load_sentencepiece_tokenizer, read_sentencepiece_file

FOLDER = Path(__file__).parent / "sentencepiece"
NAMES = ("llama", "gemma")


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def tokenizer(name: str) -> HfTokenizer:
    return load_sentencepiece_tokenizer(
        FOLDER / f"{name}.model", bos_token="<s>", adds_bos=True, special_tokens=frozenset()
    )


@pytest.fixture(scope="module")
def told(name: str) -> list[tuple[str, list[int]]]:
    return [(text, ids) for text, ids in json.loads((FOLDER / f"{name}.json").read_text())]


def test_ids_are_those_of_sentencepiece(tokenizer: HfTokenizer, told: list[tuple[str, list[int]]]) -> None:
    assert len(told) > 150

    for text, ids in told:
        assert tokenizer.encode(text, add_special_tokens=False) == ids, repr(text)
        assert tokenizer.encode(text, add_special_tokens=True) == [1, *ids]


def test_the_text_comes_back_whole_however_its_ids_are_cut(
    name: str, tokenizer: HfTokenizer, told: list[tuple[str, list[int]]]
) -> None:
    for text, ids in told:
        detokenizer = Detokenizer(tokenizer, skip_special=True)

        shown = "".join(detokenizer.feed([token_id]) for token_id in ids) + detokenizer.flush()

        # `▁` is a space to SentencePiece, and what Llama adds in front belongs to no prompt.
        expected = text.replace("▁", " ")
        assert shown == (f" {expected}" if name == "llama" and text else expected)


def test_characters_out_of_the_vocabulary_come_byte_by_byte(tokenizer: HfTokenizer) -> None:
    ids = tokenizer.encode("\U0001faa8", add_special_tokens=False)[-4:]
    detokenizer = Detokenizer(tokenizer, skip_special=True)

    assert [tokenizer.token_bytes(token_id, skip_special=True) for token_id in ids] == [
        bytes([byte]) for byte in "\U0001faa8".encode()
    ]
    assert [detokenizer.feed([token_id]) for token_id in ids] == ["", "", "", "\U0001faa8"]


def test_a_half_character_at_the_end_is_shown_as_such(tokenizer: HfTokenizer) -> None:
    ids = tokenizer.encode("\U0001faa8", add_special_tokens=False)[-4:]
    detokenizer = Detokenizer(tokenizer, skip_special=True)

    assert detokenizer.feed(ids[:2]) + detokenizer.flush() == "\ufffd"


def test_special_tokens_in_a_text_are_parsed_and_can_be_hidden(name: str, tokenizer: HfTokenizer) -> None:
    ids = tokenizer.encode("<s>hello</s>", add_special_tokens=True)

    assert (ids[0], ids[-1]) == (1, 2)
    assert ids.count(1) == 1
    assert tokenizer.special_ids == {0, 1, 2}
    shown = b"".join(tokenizer.token_bytes(token_id, skip_special=True) for token_id in ids)
    assert shown == (b" hello" if name == "llama" else b"hello")


def test_tokens_that_a_configuration_calls_special_are_special() -> None:
    tokenizer = load_sentencepiece_tokenizer(
        FOLDER / "gemma.model", bos_token="<s>", adds_bos=False, special_tokens=frozenset({"<b>"})
    )

    (token_id,) = tokenizer.encode("<b>", add_special_tokens=True)

    assert token_id in tokenizer.special_ids
    assert tokenizer.token_bytes(token_id, skip_special=True) == b""


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def piece(text: str, score: float = 0.0, kind: int = 1) -> bytes:
    return field(1, field(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + field(3, kind))


BPE = field(2, field(3, 2))
PLAIN = field(3, field(1, b"identity") + field(3, 0) + field(4, 0))
WHOLE = piece("<unk>", kind=2) + piece("a", -1.0) + piece("b", -2.0) + piece("ab", -0.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "model type: found 'unigram', expected BPE"),
        (BPE + PLAIN, "pieces: found 0"),
        (WHOLE + PLAIN, "model type: found 'unigram', expected BPE"),
        (WHOLE + field(2, field(3, 4)) + PLAIN, "model type: found 'char'"),
        (WHOLE + BPE, "remove_extra_whitespaces: found True"),
        (
            WHOLE + BPE + field(3, field(1, b"nmt_nfkc") + field(2, b"x")),
            "normaliser: found b'nmt_nfkc', expected ident",
        ),
        (b"\x0a\x7f", "127 bytes at byte 2 reach beyond the end, 2"),
        (b"\xff" * 11, "a number of more than ten bytes"),
        (b"\x0b", "wire type 3"),
        (field(1, field(1, b"\xff")), "not a SentencePiece model"),
        (field(1, field(1, 3)), "a text is a number"),
        (piece("a" * 300) + BPE + PLAIN, "a piece of 300 characters"),
    ],
    ids=str,
)
def test_files_that_cannot_be_read_are_refused_by_what_is_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)

    with pytest.raises(ModelFileError, match=message) as refused:
        load_sentencepiece_tokenizer(path, bos_token=None, adds_bos=False, special_tokens=frozenset())

    assert "Take a checkpoint with a tokenizer.json, or a GGUF file" in str(refused.value)


def test_a_small_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(WHOLE + BPE + PLAIN)

    vocabulary = read_sentencepiece_file(path)

    assert vocabulary.pieces == ("<unk>", "a", "b", "ab")
    assert vocabulary.scores == (0.0, -1.0, -2.0, -0.5)
    assert vocabulary.types == (2, 1, 1, 1)
    assert not vocabulary.adds_space_prefix


@given(content=st.binary(max_size=200), cut=st.integers(0, 60))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, cut: int) -> None:
    path = tmp_path_factory.mktemp("any") / "tokenizer.model"
    path.write_bytes((WHOLE + BPE + PLAIN)[:cut] + content)

    try:
        load_sentencepiece_tokenizer(path, bos_token=None, adds_bos=False, special_tokens=frozenset())
    except ModelFileError as error:
        assert str(error)
