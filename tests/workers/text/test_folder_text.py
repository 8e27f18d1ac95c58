import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.text.folder_text import read_folder_text
from shardline_workers.text.text_facts import TextFacts
from shardline_workers.text.text_model import SamplingDefaults
from tests.workers.text.tiny_vocabulary import ENTRIES, bos_template, byte_level_json, entry_id, write_json

SENTENCEPIECE = Path(__file__).parent / "sentencepiece"
CONFIG = {"max_position_embeddings": 128, "vocab_size": 512, "eos_token_id": 7}


def read(
    folder: Path,
    *,
    config: dict[str, Any] | None = None,
    generation: dict[str, Any] | None = None,
    tokenizer_config: dict[str, Any] | None = None,
) -> TextFacts:
    write_json(folder / "tokenizer.json", byte_level_json(post_processor=bos_template()))
    write_json(folder / "config.json", CONFIG if config is None else config)
    if generation is not None:
        write_json(folder / "generation_config.json", generation)
    if tokenizer_config is not None:
        write_json(folder / "tokenizer_config.json", tokenizer_config)
    return read_folder_text(folder)


def test_a_bare_folder_is_a_base_model(tmp_path: Path) -> None:
    facts = read(tmp_path)

    assert facts.tokenizer.encode("hello", add_special_tokens=True) == [0, entry_id("hello")]
    assert facts.chat_template is None
    assert facts.special_tokens == {}
    assert facts.eos_ids == {7}
    assert (facts.max_model_len, facts.vocab_size, facts.defaults) == (128, 512, SamplingDefaults())


def read_sentencepiece(folder: Path, tokenizer_config: dict[str, Any]) -> TextFacts:
    shutil.copy(SENTENCEPIECE / "gemma.model", folder / "tokenizer.model")
    write_json(folder / "config.json", CONFIG)
    write_json(folder / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>", **tokenizer_config})
    return read_folder_text(folder)


def test_a_folder_may_have_a_tokenizer_of_sentencepiece(tmp_path: Path) -> None:
    facts = read_sentencepiece(tmp_path, {})
    text, ids = next((text, ids) for text, ids in json.loads((SENTENCEPIECE / "gemma.json").read_text()) if ids)

    assert facts.tokenizer.encode(text, add_special_tokens=True) == [1, *ids]
    assert facts.eos_ids == {2, 7}


def test_bos_and_special_tokens_of_sentencepiece_are_those_of_the_configuration(tmp_path: Path) -> None:
    added = {"9": {"content": "<b>", "special": True}, "10": {"content": "</b>", "special": False}, "11": "broken"}
    tokenizer = read_sentencepiece(tmp_path, {"add_bos_token": False, "added_tokens_decoder": added}).tokenizer

    bold, end = tokenizer.encode("<b></b>", add_special_tokens=True)

    assert bold in tokenizer.special_ids
    assert end not in tokenizer.special_ids


def test_ends_are_those_of_generation_and_the_tokenizers(tmp_path: Path) -> None:
    facts = read(tmp_path, generation={"eos_token_id": [3, 4]}, tokenizer_config={"eos_token": {"content": "<|end|>"}})

    assert facts.eos_ids == {1, 3, 4}


def test_sampling_defaults_are_those_of_generation(tmp_path: Path) -> None:
    facts = read(tmp_path, generation={"temperature": 0.6, "top_k": 20, "top_p": None})

    assert facts.defaults == SamplingDefaults(temperature=0.6, top_k=20)


def test_bos_is_not_doubled_where_text_and_tokenizer_both_write_it(tmp_path: Path) -> None:
    facts = read(tmp_path, tokenizer_config={"bos_token": "<s>"})

    assert facts.special_tokens == {"bos_token": "<s>"}
    assert facts.tokenizer.encode("<s>hello", add_special_tokens=True) == [0, entry_id("hello")]


def test_a_template_of_its_own_file_comes_before_the_configured_one(tmp_path: Path) -> None:
    configured = read(tmp_path, tokenizer_config={"chat_template": "{{ 1 }}"}).chat_template
    (tmp_path / "chat_template.jinja").write_text("{{ 2 }}")
    own = read(tmp_path).chat_template

    assert (configured, own) == ("{{ 1 }}", "{{ 2 }}")


def test_of_several_named_templates_the_default_is_taken(tmp_path: Path) -> None:
    templates = [{"name": "rag", "template": "{{ 1 }}"}, {"name": "default", "template": "{{ 2 }}"}]

    assert read(tmp_path, tokenizer_config={"chat_template": templates}).chat_template == "{{ 2 }}"
    assert read(tmp_path, tokenizer_config={"chat_template": templates[:1]}).chat_template is None


def test_a_model_that_also_sees_keeps_its_lengths_inside(tmp_path: Path) -> None:
    facts = read(tmp_path, config={"text_config": {"max_position_embeddings": 64}})

    assert (facts.max_model_len, facts.vocab_size) == (64, len(ENTRIES))


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("config.json", "{}", "max_position_embeddings: found None"),
        ("config.json", '{"max_position_embeddings": "8"}', "max_position_embeddings: found '8'"),
        ("tokenizer.json", "{}", "not a tokenizer"),
        ("generation_config.json", '{"eos_token_id": "x"}', "eos_token_id: found 'x'"),
        ("tokenizer_config.json", '{"chat_template": 3}', "chat_template: found 3"),
    ],
)
def test_what_is_broken_is_named(name: str, content: str, what: str, tmp_path: Path) -> None:
    read(tmp_path)
    (tmp_path / name).write_text(content)

    with pytest.raises(ModelFileError, match=what):
        read_folder_text(tmp_path)
