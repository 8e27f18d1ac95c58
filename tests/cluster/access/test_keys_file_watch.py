"""A keys file is read again when it has changed, and only when it stands still; a broken one changes nothing."""

import logging
import os
from pathlib import Path

import pytest

from shardline_cluster.access.keys_file_watch import KeysFileWatch
from shardline_cluster.errors import ConfigurationError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return _write(tmp_path / "keys.jsonl", "a")


def _write(file: Path, *ids: str) -> Path:
    file.write_text("".join(f'{{"id": "{name}", "key": "sesame-sesame-sesame-{name}"}}\n' for name in ids))
    file.chmod(0o600)
    return file


def _looks(watch: KeysFileWatch, number: int) -> list[list[str] | None]:
    looks = [watch.look() for _ in range(number)]
    return [None if keys is None else [key.id for key in keys] for keys in looks]


def test_a_file_that_does_not_change_is_read_once(file: Path) -> None:
    watch = KeysFileWatch(file)

    keys = watch.read()

    assert [key.id for key in keys] == ["a"]
    assert _looks(watch, 3) == [None, None, None]


def test_a_change_is_read_once_the_file_stands_still(file: Path) -> None:
    watch = KeysFileWatch(file)
    watch.read()

    _write(file, "a", "b")

    assert _looks(watch, 3) == [None, ["a", "b"], None]


def test_a_file_that_is_still_being_written_is_left_alone(file: Path) -> None:
    watch = KeysFileWatch(file)
    watch.read()

    _write(file)
    first = watch.look()
    _write(file, "a", "b", "c")
    second = watch.look()

    assert (first, second) == (None, None)
    assert _looks(watch, 1) == [["a", "b", "c"]]


def test_a_file_that_another_one_replaces_is_read_even_if_size_and_time_are_the_same(file: Path) -> None:
    watch = KeysFileWatch(file)
    watch.read()
    before = file.stat()

    other = _write(file.with_suffix(".new"), "b")
    os.utime(other, ns=(before.st_mtime_ns, before.st_mtime_ns))
    other.replace(file)

    assert other.name != file.name and file.stat().st_size == before.st_size
    assert _looks(watch, 2) == [None, ["b"]]


def test_a_broken_change_is_told_once_and_mended_later(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    watch = KeysFileWatch(file)
    watch.read()

    file.write_text('{"id": "a", "key": "short-sesame"}\n')
    broken = _looks(watch, 4)
    _write(file, "c")

    assert broken == [None] * 4
    assert _looks(watch, 2) == [None, ["c"]]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "keys.jsonl, line 1: key has 12 characters" in errors[0]
    assert "sesame" not in errors[0]


def test_a_file_that_may_be_read_only_later_is_read_then(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = KeysFileWatch(file)
    watch.read()
    _write(file, "b")
    read_text = Path.read_text

    def guarded(path: Path, encoding: str) -> str:  # as root, who runs some tests, would not be
        if path.stat().st_mode & 0o040 == 0:
            raise PermissionError(13, "Permission denied")
        return read_text(path, encoding=encoding)

    monkeypatch.setattr(Path, "read_text", guarded)
    forbidden = _looks(watch, 3)
    file.chmod(0o640)

    assert forbidden == [None] * 3
    assert _looks(watch, 2) == [None, ["b"]]


def test_a_file_that_is_gone_is_told_once_and_changes_nothing(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    watch = KeysFileWatch(file)
    watch.read()

    file.unlink()
    gone = _looks(watch, 3)
    _write(file, "b")

    assert gone == [None] * 3
    assert _looks(watch, 2) == [None, ["b"]]
    assert [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()] == [
        f"the keys that were read before still count: --api-keys-file {file} cannot be read: No such file or directory"
    ]


def test_what_cannot_be_read_is_refused_at_the_start(tmp_path: Path) -> None:
    latin = tmp_path / "latin"
    latin.write_bytes(b"# caf\xe9\n")
    big = tmp_path / "big"
    with big.open("wb") as output:
        output.truncate((16 << 20) + 1)

    for path, told in (
        (tmp_path / "absent", "No such file"),
        (tmp_path, "is no file"),
        (latin, "byte 5 is no UTF-8"),
        (big, "has 16777217 bytes, but at most 16777216 are read"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            KeysFileWatch(path).read()


def test_a_file_with_keys_that_everybody_can_read_is_warned_of(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    KeysFileWatch(file).read()
    assert not caplog.records

    file.chmod(0o644)
    KeysFileWatch(file).read()

    assert "chmod o-r" in caplog.text
    assert "chmod o-w" not in caplog.text


def test_a_file_that_everybody_can_write_is_warned_of(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text(f'{{"id": "a", "sha256": "{"0" * 64}"}}\n')
    file.chmod(0o666)

    KeysFileWatch(file).read()

    assert [record.getMessage() for record in caplog.records] == [
        f"every user of this machine can write keys of his own into {file}: chmod o-w it"
    ]
