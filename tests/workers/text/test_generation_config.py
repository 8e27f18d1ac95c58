"""Sampling defaults of a model's files."""

from pathlib import Path

import pytest

from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.model_source import ModelFiles, ModelKind
from shardline_workers.text.generation_config import read_defaults, told_defaults, with_recommended
from shardline_workers.text.text_model import SamplingDefaults

KEYS = {name: f"my.{name}" for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")}


def _facts(**values: object) -> ModelFacts:
    return ModelFacts(Path("m.json"), {f"my.{name}": value for name, value in values.items()})


def test_each_field_is_read_by_its_key_and_what_is_absent_is_none() -> None:
    facts = _facts(temperature=0, top_k=50, top_p=0.95, repetition_penalty=1.05, other=3)

    assert read_defaults(facts, KEYS) == SamplingDefaults(
        temperature=0.0, top_k=50, top_p=0.95, repetition_penalty=1.05
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"temperature": 11}, "my.temperature: found 11.0, expected 0 … 10; --generation-config none"),
        ({"top_p": 0}, "my.top_p: found 0.0, expected more than 0 and at most 1"),
        ({"top_p": 1.5}, "my.top_p"),
        ({"min_p": 2}, "my.min_p: found 2.0, expected 0 … 1"),
        ({"top_k": 2**32}, "my.top_k: found 4294967296"),
        ({"top_k": -1}, "my.top_k: found -1"),
        ({"repetition_penalty": 0}, "my.repetition_penalty: found 0.0, expected 0.01 … 100"),
        ({"temperature": "warm"}, "my.temperature: found 'warm'"),
    ],
)
def test_a_default_that_no_request_could_have_is_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ModelFileError) as error:
        read_defaults(_facts(**values), KEYS)

    assert words in str(error.value)


def test_a_recommendation_fills_only_what_the_files_leave_open() -> None:
    files = ModelFiles(source="smollm2:135m", kind=ModelKind.GGUF, path=Path("m.gguf"), digest="0" * 16)
    other = ModelFiles(source="m.gguf", kind=ModelKind.GGUF, path=Path("m.gguf"), digest="0" * 16)

    assert with_recommended(SamplingDefaults(temperature=0.5), files) == SamplingDefaults(temperature=0.5, top_p=0.9)
    assert with_recommended(SamplingDefaults(), other) == SamplingDefaults()


def test_only_what_is_set_is_told() -> None:
    assert told_defaults(SamplingDefaults(temperature=0.0, top_k=5)) == {"temperature": 0.0, "top_k": 5}
