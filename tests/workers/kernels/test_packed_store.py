"""Packed weights come back as they were put; anything else on the disk is made anew."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from shardline_workers.kernels.packed_store import PackedStore

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
