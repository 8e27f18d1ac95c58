from typing import Any

import pytest

from shardline_workers.files.model_file_error import ModelFileError


def told(what: str = "key", *, value: object = 3) -> str:
    return str(ModelFileError.about("m.gguf", what, value=value, bound="a string", remedy="Fetch it again."))


def test_the_text_says_where_what_value_bound_and_remedy() -> None:
    assert told() == "m.gguf: key: found 3, expected a string. Fetch it again."


def test_a_name_from_a_hostile_file_stays_one_printable_line() -> None:
    text = told("type of a\n2026 ERROR all is lost\x1b[2J\ud800" + "x" * 60_000, value="b\n\x1b[2J")

    assert text.isprintable()
    assert "type of a\\n2026" in text
    assert len(text) < 700


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    ["x" * 100_000, b"x" * 100_000, list(range(100_000)), {"a": "b" * 100_000}, tuple("ab" * 50_000), nested(100_000)],
    ids=["text", "bytes", "list", "object", "tuple", "nested"],
)
def test_a_value_of_any_size_and_depth_is_shown_short(value: object) -> None:
    assert len(told(value=value)) < 500


def test_a_value_of_a_few_parts_is_shown_whole() -> None:
    assert "found (2, 3, 4, 5, 6, 7, 8), expected" in told(value=(2, 3, 4, 5, 6, 7, 8))
    assert "found {'weight_map': {'a': 3}}, expected" in told(value={"weight_map": {"a": 3}})
