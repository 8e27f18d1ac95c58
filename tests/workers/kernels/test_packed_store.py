"""Packed weights come back as they were put; anything else on the disk is made anew."""

import errno
import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from shardline_workers.kernels.packed_store import ABANDONED_S, PackedStore

MATRICES = [np.arange(size, dtype=np.uint8) for size in (100, 1, 200)]


def stored(folder: Path, key: str = "model", *, matrices: list[NDArray[np.uint8]] = MATRICES) -> Path:
    """Puts matrices into a new store, and returns its file."""
    store = PackedStore(folder, key)
    for matrix in matrices:
        assert store.take(len(matrix)) is None
        store.put(matrix)
    store.save()
    return folder / f"{key}.packed"


def taken(folder: Path, key: str = "model") -> list[NDArray[np.uint8] | None]:
    store = PackedStore(folder, key)
    return [store.take(len(matrix)) for matrix in MATRICES]


def test_what_was_put_comes_back_on_aligned_memory(tmp_path: Path) -> None:
    stored(tmp_path)

    matrices = taken(tmp_path)

    for matrix, expected in zip(matrices, MATRICES, strict=True):
        assert matrix is not None
        assert matrix.tolist() == expected.tolist()
        assert matrix.ctypes.data % 64 == 0


def test_each_key_has_its_own_file(tmp_path: Path) -> None:
    stored(tmp_path)

    assert taken(tmp_path, "other") == [None] * 3


@pytest.mark.parametrize("position", [0, 20, 50, -1])
def test_a_file_with_a_wrong_byte_is_thrown_away(tmp_path: Path, position: int) -> None:
    path = stored(tmp_path)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)

    assert taken(tmp_path) == [None] * 3
    assert not path.exists()


@pytest.mark.parametrize("num_bytes", [0, 10, 28, 60, 400])
def test_a_file_that_was_cut_off_is_thrown_away(tmp_path: Path, num_bytes: int) -> None:
    path = stored(tmp_path)
    os.truncate(path, num_bytes)

    assert taken(tmp_path) == [None] * 3


def test_a_file_that_holds_other_sizes_than_asked_for_is_written_anew(tmp_path: Path) -> None:
    stored(tmp_path, matrices=[*MATRICES[:2], np.zeros(7, np.uint8)])
    store = PackedStore(tmp_path, "model")

    matrices = [store.take(len(matrix)) for matrix in MATRICES]
    store.put(MATRICES[2])
    store.save()

    assert [matrix is None for matrix in matrices] == [False, False, True]
    assert [matrix.tolist() for matrix in taken(tmp_path) if matrix is not None] == [m.tolist() for m in MATRICES]


def test_the_files_that_were_not_used_for_longest_make_room(tmp_path: Path) -> None:
    for age, key in enumerate(["newest", "older", "oldest"]):
        path = stored(tmp_path, key)
        os.utime(path, (1e9 - age, 1e9 - age))
    bound = 2 * path.stat().st_size + 350

    store = PackedStore(tmp_path, "one more", max_bytes=bound)
    store.take(300)
    store.put(np.zeros(300, np.uint8))
    store.save()

    assert sorted(path.stem for path in tmp_path.glob("*.packed")) == ["newest", "older", "one more"]


def test_a_model_larger_than_the_store_is_not_kept_and_nothing_goes_for_it(tmp_path: Path) -> None:
    stored(tmp_path)
    store = PackedStore(tmp_path, "huge", max_bytes=1000)
    store.take(2000)
    store.put(np.zeros(2000, np.uint8))

    store.save()

    assert [path.stem for path in tmp_path.glob("*.packed")] == ["model"]


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    stored(tmp_path / "file")

    assert taken(tmp_path / "file") == [None] * 3


def test_no_half_written_file_is_left(tmp_path: Path) -> None:
    path = stored(tmp_path)

    assert list(tmp_path.iterdir()) == [path]


@contextmanager
def disk_that_is_full_after(num_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes: writing more fails in the middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_while_it_is_written_leaves_nothing_behind(tmp_path: Path) -> None:
    with disk_that_is_full_after(50_000):
        stored(tmp_path, matrices=[np.ones(80_000, np.uint8)])

    assert list(tmp_path.iterdir()) == []
    assert PackedStore(tmp_path, "model").take(80_000) is None


def test_two_that_pack_at_once_leave_one_whole_file_and_each_keeps_what_it_has(tmp_path: Path) -> None:
    stores = [PackedStore(tmp_path, "model") for _ in range(2)]
    for store in stores:
        for matrix in MATRICES:
            assert store.take(len(matrix)) is None
            store.put(matrix)
    savers = [threading.Thread(target=store.save) for store in stores]

    for saver in savers:
        saver.start()
    for saver in savers:
        saver.join()

    assert [path.name for path in tmp_path.iterdir()] == ["model.packed"]
    assert [matrix.tolist() for matrix in taken(tmp_path) if matrix is not None] == [m.tolist() for m in MATRICES]


def test_a_file_that_is_replaced_stays_whole_for_who_has_mapped_it(tmp_path: Path) -> None:
    stored(tmp_path)
    mapped = taken(tmp_path)

    stored(tmp_path / "other", matrices=[np.zeros(len(matrix), np.uint8) for matrix in MATRICES])
    (tmp_path / "other" / "model.packed").replace(tmp_path / "model.packed")

    assert [matrix.tolist() for matrix in mapped if matrix is not None] == [m.tolist() for m in MATRICES]


def test_a_broken_file_that_cannot_be_deleted_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(tmp_path)
    os.truncate(path, 60)
    monkeypatch.setattr(Path, "unlink", _read_only)

    assert taken(tmp_path) == [None] * 3
    assert path.exists()


def _read_only(_path: Path, **_: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system")  # which even root, who runs tests at times, would meet


def test_a_whole_file_in_a_folder_that_cannot_be_written_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path)

    def read_only(_path: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", read_only)

    assert all(matrix is not None for matrix in taken(tmp_path))


def test_what_a_killed_process_had_begun_to_write_goes_after_a_while(tmp_path: Path) -> None:
    young, old = tmp_path / "packing-young", tmp_path / "packing-old"
    for part in (young, old):
        part.write_bytes(b"half")
    hours_ago = time.time() - 2 * ABANDONED_S
    os.utime(old, (hours_ago, hours_ago))

    path = stored(tmp_path)

    assert sorted(tmp_path.iterdir()) == sorted([path, young])
