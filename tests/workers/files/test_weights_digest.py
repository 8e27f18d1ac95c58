import os
from pathlib import Path

import pytest

from shardline_workers.files import weights_digest
from shardline_workers.files.weights_digest import file_digest, folder_digest


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_a_digest_names_the_content_and_not_the_path(tmp_path: Path, cache: Path) -> None:
    for name, content in [("a", b"one"), ("b", b"one"), ("c", b"two")]:
        (tmp_path / name).write_bytes(content)

    digests = [file_digest(tmp_path / name, cache_folder=cache) for name in "abc"]

    assert len(digests[0]) == 16
    assert digests[0] == digests[1] != digests[2]


def test_a_known_file_is_not_read_again_and_a_changed_one_is(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 1))
    first = file_digest(path, cache_folder=cache)
    path.write_bytes(b"two")

    os.utime(path, ns=(1, 1))
    unread = file_digest(path, cache_folder=cache)
    os.utime(path, ns=(2, 2))
    reread = file_digest(path, cache_folder=cache)

    assert unread == first
    assert reread != first


def test_a_broken_record_and_a_read_only_cache_only_cost_time(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"one")
    first = file_digest(path, cache_folder=cache)
    for record in (cache / "digests").iterdir():
        record.write_text("{")
    blocked = tmp_path / "blocked"
    blocked.write_text("no folder")

    assert file_digest(path, cache_folder=cache) == first
    assert file_digest(path, cache_folder=blocked) == first


def test_a_record_that_cannot_be_kept_leaves_nothing_behind(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"one")
    first = file_digest(path, cache_folder=cache)
    (record,) = (cache / "digests").iterdir()
    record.unlink()
    record.mkdir()

    assert file_digest(path, cache_folder=cache) == first
    assert list((cache / "digests").iterdir()) == [record]


def test_of_a_large_file_header_size_and_samples_are_hashed(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_digest, "FULL_HASH_BYTES", 1 << 20)
    monkeypatch.setattr(weights_digest, "_HEAD_BYTES", 1 << 10)
    monkeypatch.setattr(weights_digest, "_SAMPLE_BYTES", 16)
    path = tmp_path / "model"
    content = bytearray(3 << 20)

    def digest(change_at: int | None = None, *, more: int = 0) -> str:
        changed = bytearray(content) + bytes(more)
        if change_at is not None:
            changed[change_at] = 1
        path.write_bytes(changed)
        path.touch()
        return file_digest(path, cache_folder=cache / str(change_at) / str(more))

    stride = (len(content) - 1024) // 1024
    assert len({digest(), digest(100), digest(1024 + 7 * stride), digest(more=1)}) == 4
    assert digest(1024 + 7 * stride + 100) == digest()


def test_a_folders_digest_depends_on_names_and_not_on_their_order(tmp_path: Path, cache: Path) -> None:
    for name, content in [("a", b"one"), ("b", b"two"), ("c", b"two")]:
        (tmp_path / name).write_bytes(content)
    a, b, c = (tmp_path / name for name in "abc")

    assert folder_digest([a, b], cache_folder=cache) == folder_digest([b, a], cache_folder=cache)
    assert folder_digest([a, b], cache_folder=cache) != folder_digest([a, c], cache_folder=cache)
