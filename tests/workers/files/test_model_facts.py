from pathlib import Path
from typing import Any

import pytest

from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_file_error import ModelFileError


def facts(**values: Any) -> ModelFacts:
    return ModelFacts(Path("config.json"), values)


def test_facts_have_their_types_and_null_is_nothing() -> None:
    config = facts(name="a", length=8, eps=0.5, ends=[1, 2], end=3, tied=False, inner={"length": 9}, nothing=None)

    assert (config.text("name"), config.whole("length"), config.number("eps")) == ("a", 8, 0.5)
    assert (config.flag("tied"), config.flag("nothing")) == (False, None)
    assert (config.number("length"), config.wholes("ends"), config.wholes("end")) == (8.0, (1, 2), (3,))
    assert config.part("inner").whole("length") == 9
    assert config.part("nothing").values == {}
    assert [config.text("nothing"), config.whole("nothing"), config.number("missing")] == [None] * 3
    assert config.wholes("missing") == ()


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("text", 3),
        ("text", "half \ud83d"),
        ("flag", "false"),
        ("flag", 0),
        ("whole", "3"),
        ("whole", -1),
        ("whole", True),
        ("whole", 1.5),
        ("number", "a"),
        ("number", -0.1),
        ("number", float("nan")),
        ("number", float("inf")),
        ("number", 10**400),
        ("wholes", ["a"]),
        ("wholes", -1),
    ],
)
def test_a_wrong_type_is_refused_with_file_key_and_value(method: str, value: object) -> None:
    with pytest.raises(ModelFileError, match=r"config\.json: key: found .*, expected"):
        getattr(facts(key=value), method)("key")


def test_an_emoji_is_text() -> None:
    assert facts(key="🚀").text("key") == "🚀"


def test_a_missing_file_says_nothing(tmp_path: Path) -> None:
    assert ModelFacts.read_json(tmp_path / "none.json").values == {}


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff", b'{"a":' * 100_000])
def test_a_file_that_holds_no_object_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)

    with pytest.raises(ModelFileError, match="expected a JSON object"):
        ModelFacts.read_json(tmp_path / "config.json")


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="expected a JSON object"):
        ModelFacts.read_json(tmp_path)
