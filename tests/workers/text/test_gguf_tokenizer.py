from pathlib import Path
from typing import Any

import pytest
from tokenizers import pre_tokenizers

from shardline_workers.files.gguf_file import GgufFile
from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.model_source import ModelFiles
from shardline_workers.text.gguf_tokenizer import build_gguf_tokenizer
from shardline_workers.text.gguf_tokenizer_data import GgufTokenizerData
from shardline_workers.text.hf_tokenizer import HfTokenizer
from tests.workers.text.tiny_vocabulary import ENTRIES, USER_DEFINED, entry_id, gguf_metadata
from tests.workers.text.varied_texts import varied_texts


def built(**changes: Any) -> HfTokenizer:
    return build_gguf_tokenizer(GgufTokenizerData(ModelFacts(Path("tiny.gguf"), gguf_metadata(**changes))))


def entries(tokenizer: HfTokenizer, text: str) -> list[bytes]:
    ids = tokenizer.encode(text, add_special_tokens=False)
    return [tokenizer.token_bytes(token_id, skip_special=False) for token_id in ids]


def test_merges_special_and_whole_tokens_are_those_of_the_file() -> None:
    tokenizer = built()

    ids = tokenizer.encode(f"<s>hello hello{USER_DEFINED}", add_special_tokens=False)

    assert ids == [0, entry_id("hello"), entry_id("Ġhello"), entry_id(USER_DEFINED)]
    assert tokenizer.special_ids == {0, 1}


@pytest.mark.parametrize(
    ("pre", "cut"),
    [
        ("gpt-2", [b"12", b" ", b" hello"]),
        ("smollm", [b"1", b"2", b" ", b" hello"]),
        ("llama-bpe", [b"12", b" ", b" hello"]),
        ("qwen2", [b"1", b"2", b" ", b" hello"]),
    ],
)
def test_the_pre_tokenizers_name_decides_how_digits_and_spaces_are_cut(pre: str, cut: list[bytes]) -> None:
    assert entries(built(pre=pre), "12  hello") == cut


def test_spaces_before_a_digit_stay_together_where_digits_are_cut_out_first() -> None:
    assert entries(built(pre="smollm"), "  1") == [b"  ", b"1"]
    assert entries(built(pre="gpt-2"), "  1") == [b" ", b" ", b"1"]


def test_qwen_composes_characters_first() -> None:
    assert entries(built(pre="qwen2"), "e\u0301") == entries(built(pre="qwen2"), "é")
    assert entries(built(pre="gpt-2"), "e\u0301") != entries(built(pre="gpt-2"), "é")


@pytest.mark.parametrize(
    ("changes", "adds"),
    [
        ({}, False),
        ({"add_bos_token": True}, True),
        ({"pre": "llama-bpe"}, True),
        ({"pre": "llama-bpe", "add_bos_token": False}, False),
        ({"add_bos_token": True, "bos_token_id": None}, False),
    ],
)
def test_bos_is_written_once_where_file_or_name_say_so(changes: dict[str, Any], adds: bool) -> None:
    tokenizer = built(**changes)

    ids = tokenizer.encode("hello", add_special_tokens=True)

    assert ids == [0] * adds + [entry_id("hello")]
    assert tokenizer.encode("<s>hello", add_special_tokens=True) == [0, entry_id("hello")]


PIECES = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "  ", "ab")


def sentencepiece(**changes: Any) -> HfTokenizer:
    types = (2, 3, 3, *[6] * 256, 1, 1, 1, 1, 4, 1)
    told = {"model": "llama", "pre": "default", "tokens": PIECES, "token_type": types, "merges": None}
    scores = tuple(-float(number) for number in range(len(PIECES)))
    return built(**told | {"scores": scores, "bos_token_id": 1, "eos_token_id": 2} | changes)


def test_a_sentencepiece_vocabulary_is_joined_by_scores_with_bytes_for_the_rest() -> None:
    tokenizer = sentencepiece(add_space_prefix=False)

    assert entries(tokenizer, "a ab  é") == [b"a", b" a", b"b", b"  ", b"\xc3", b"\xa9"]
    assert tokenizer.special_ids == {0, 1, 2}


def test_a_sentencepiece_vocabulary_begins_with_a_space_and_bos_unless_told_otherwise() -> None:
    a, space_a = PIECES.index("a"), PIECES.index("▁a")

    assert sentencepiece().encode("a", add_special_tokens=True) == [1, space_a]
    assert sentencepiece().encode("<s>a", add_special_tokens=True) == [1, space_a]
    told = sentencepiece(add_space_prefix=False, add_bos_token=False)
    assert told.encode("a", add_special_tokens=True) == [a]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model": "t5"}, r"tokenizer\.ggml\.model: found 't5', expected gpt2 .byte-level BPE. or llama .Sentence"),
        ({"model": "llama"}, r"tokenizer\.ggml\.scores: found None, expected \d+ numbers"),
        ({"model": "llama", "scores": (1,) * len(ENTRIES)}, r"tokenizer\.ggml\.scores: found \(1, 1"),
        ({"model": "llama", "remove_extra_whitespaces": True}, "remove_extra_whitespaces: found True, expected false"),
        ({"model": "llama", "tokens": ("a" * 300,), "token_type": (1,), "scores": (0.0,)}, "a piece of 300 characters"),
        (
            {"pre": "superbpe"},
            r"tokenizer\.ggml\.pre: found 'superbpe', expected one of gpt-2.*smollm.*llama-bpe.*qwen2",
        ),
        ({"pre": None}, r"tokenizer\.ggml\.pre: found None"),
        ({"tokens": (1, 2)}, "expected an array of strings"),
        ({"tokens": None}, "expected an array of strings"),
        ({"merges": ("hello",)}, "two entries with a space between"),
        ({"merges": ("x nonsense",)}, "merges of entries"),
        ({"token_type": (1,)}, "token_type"),
        ({"bos_token_id": 1 << 31}, r"bos_token_id: found 2147483648, expected a number from 0"),
        ({"model": 3}, "expected a string"),
        ({"add_bos_token": "no"}, "add_bos_token: found 'no', expected true or false"),
    ],
)
def test_what_is_not_supported_or_does_not_fit_is_refused_by_name(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(ModelFileError, match=what):
        built(**changes)


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the oracle
def test_ids_are_those_of_transformers_on_the_same_file(smollm2: ModelFiles) -> None:
    from transformers import AutoTokenizer

    oracle = AutoTokenizer.from_pretrained(smollm2.path.parent, gguf_file=smollm2.path.name)
    # transformers' conversion knows no `smollm`: the model's own tokenizer.json cuts digits out first.
    oracle.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with GgufFile.open(smollm2.path) as file:
        tokenizer = build_gguf_tokenizer(GgufTokenizerData(ModelFacts(smollm2.path, file.metadata)))
    texts = list(varied_texts())

    ours = [tokenizer.encode(text, add_special_tokens=True) for text in texts]

    assert len(texts) > 300
    assert ours == [oracle.encode(text) for text in texts]
    for ids in ours:
        shown = b"".join(tokenizer.token_bytes(token_id, skip_special=False) for token_id in ids).decode(
            "utf-8", "replace"
        )
        assert shown == oracle.decode(ids, clean_up_tokenization_spaces=False)
