"""Every wrong model file is refused in words that help, whatever part of it is wrong."""

from pathlib import Path

import pytest

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.model_source import resolve_model
from shardline_workers.models.checkpoint import open_checkpoint
from shardline_workers.text.chat_template import ChatTemplateError
from shardline_workers.text.load_text_model import load_text_model
from tests.bad_input.model_file_row import Make, Row, config, gguf
from tests.bad_input.model_file_rows import ROWS


@pytest.mark.parametrize("row", ROWS, ids=[row.what for row in ROWS])
def test_a_wrong_model_file_is_refused_in_words_that_help(row: Row, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()

    with pytest.raises((ModelFileError, ChatTemplateError)) as raised:
        _read(row.make(tmp_path / "m"), cache_folder=tmp_path)

    told = str(raised.value)
    assert [part for part in row.told if part not in told] == [], told
    assert len(told) < 1_500 and told.isprintable(), told


@pytest.mark.parametrize("make", [gguf(), config()], ids=["GGUF", "folder"])
def test_the_same_files_without_the_lie_are_read(make: Make, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()

    _read(make(tmp_path / "m"), cache_folder=tmp_path)


def test_each_row_is_another() -> None:
    assert len({row.what for row in ROWS}) == len(ROWS)


def _read(path: Path, *, cache_folder: Path) -> None:
    """What router and replica read of a model before they load its weights."""
    files = resolve_model(str(path), cache_folder=cache_folder, report=lambda _: None)
    load_text_model(files, name="m", chat_template=None)
    with open_checkpoint(files):
        pass
