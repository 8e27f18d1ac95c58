from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.text.gguf_text import read_gguf_text
from shardline_workers.text.text_facts import TextFacts
from shardline_workers.text.text_model import SamplingDefaults
from tests.workers.files.gguf_bytes import TensorInfo, gguf_bytes, pair
from tests.workers.text.tiny_vocabulary import ENTRIES, SPECIALS, entry_id, gguf_metadata


def read(tmp_path: Path, changes: dict[str, Any] | None = None, *, tensors: Sequence[TensorInfo] = ()) -> TextFacts:
    keys = gguf_metadata() | {"general.architecture": "llama", "llama.context_length": 128} | (changes or {})
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in keys.items()}
    path = tmp_path / "tiny.gguf"
    pairs = [pair(key, value) for key, value in values.items() if value is not None]
    path.write_bytes(gguf_bytes(pairs=pairs, tensors=tensors, data=bytes(4 * 512 * 2)))
    return read_gguf_text(path)


def test_a_base_model_has_a_tokenizer_and_no_chat_template(tmp_path: Path) -> None:
    facts = read(tmp_path)

    assert facts.tokenizer.encode("hello", add_special_tokens=True) == [entry_id("hello")]
    assert facts.chat_template is None
    assert (facts.max_model_len, facts.vocab_size) == (128, len(ENTRIES))
    assert facts.special_tokens == {"bos_token": "<s>", "eos_token": "<|end|>"}
    assert facts.defaults == SamplingDefaults()


def test_the_vocabulary_has_as_many_rows_as_the_embedding(tmp_path: Path) -> None:
    facts = read(tmp_path, tensors=[TensorInfo("token_embd.weight", [2, 512])])

    assert facts.vocab_size == 512


def test_template_and_sampling_are_read(tmp_path: Path) -> None:
    template = {"tokenizer.chat_template": "{{ messages }}"}
    sampling = {"general.sampling.temp": 0.6, "general.sampling.top_k": 20, "general.sampling.top_p": 0.95}

    facts = read(tmp_path, {**template, **sampling})

    assert facts.chat_template == "{{ messages }}"
    assert facts.defaults == SamplingDefaults(temperature=0.6, top_k=20, top_p=0.95)


def test_every_end_counts_those_that_the_file_names_and_the_known_ones(tmp_path: Path) -> None:
    named = {"tokenizer.ggml.eos_token_id": 0, "tokenizer.ggml.eot_token_id": entry_id("h")}

    assert SPECIALS[1] == "<|end|>"  # a known one
    assert read(tmp_path, named).eos_ids == {0, 1, entry_id("h")}


def test_a_known_end_that_is_ordinary_text_does_not_end_anything(tmp_path: Path) -> None:
    ordinary = {"tokenizer.ggml.token_type": (1,) * len(ENTRIES), "tokenizer.ggml.eos_token_id": None}

    assert read(tmp_path, ordinary).eos_ids == frozenset()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"llama.context_length": None}, r"llama\.context_length: found None"),
        ({"general.architecture": None}, r"general\.architecture: found None"),
        ({"tokenizer.chat_template": 3}, "expected a string"),
        ({"tokenizer.ggml.eos_token_id": 1 << 31}, "eos_token_id"),
    ],
)
def test_what_is_missing_or_wrong_is_named(changes: dict[str, Any], what: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=what):
        read(tmp_path, changes)
