from pathlib import Path

import pytest

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.text.jinja_chat_template import MAX_TEMPLATE_CHARACTERS
from shardline_workers.text.template_file import read_template


def test_a_template_is_read_as_utf_8(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_bytes("{{ 'größe' }}".encode())

    assert read_template(tmp_path / "t.jinja") == "{{ 'größe' }}"


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    assert read_template(tmp_path / "t.jinja") is None


def test_of_a_file_without_end_no_more_is_read_than_shows_that_it_is_too_long(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").symlink_to("/dev/zero")

    template = read_template(tmp_path / "t.jinja")

    assert template is not None
    assert len(template) == MAX_TEMPLATE_CHARACTERS + 1


@pytest.mark.parametrize("content", [b"\xff", None], ids=["no UTF-8", "a folder"])
def test_what_is_no_text_is_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "t.jinja").write_bytes(content)

    with pytest.raises(ModelFileError, match="no chat template"):
        read_template(tmp_path if content is None else tmp_path / "t.jinja")
