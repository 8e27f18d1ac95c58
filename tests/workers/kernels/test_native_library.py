"""The library that was loaded is the one that was meant, and its errors are told in its own words."""

import ctypes
import os
from pathlib import Path

import pytest

from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.native_library import (
    NativeError,
    NativeLibrary,
    NativeUnavailableError,
    load_native_library,
)


def test_structures_are_as_large_as_the_librarys(native_library: NativeLibrary) -> None:
    assert native_library.sl_op_bytes() == ctypes.sizeof(api.Op)
    assert native_library.sl_abi_version() == api.ABI_VERSION


def test_the_best_instruction_set_is_one_of_the_widest_that_are_available(native_library: NativeLibrary) -> None:
    available = list(native_library.available_isas())

    assert available[0] == "portable"
    widest = [name for name in available if name.split("-")[0] == available[-1].split("-")[0]]
    assert native_library.best_isa() in widest


def test_a_refusal_is_told_in_the_librarys_words(native_library: NativeLibrary) -> None:
    with pytest.raises(NativeError, match="format"):
        native_library.weight_bytes(99, 16, 32)  # type: ignore[arg-type]


def test_something_else_than_the_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kernels.so"
    path.write_text("no library")

    with pytest.raises(NativeUnavailableError, match=r"cannot be loaded: .*; delete .*kernels.so"):
        NativeLibrary(path)


def test_a_cache_that_cannot_be_written_is_told_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "shardline").write_text("in the way")

    with pytest.raises(NativeUnavailableError, match="set XDG_CACHE_HOME to a folder that can be written"):
        load_native_library({"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path)}, lambda _: None)


def test_an_empty_path_is_told_with_cost_and_cure(tmp_path: Path) -> None:
    with pytest.raises(NativeUnavailableError, match=r"looked for c\+\+.*9 times slower.*install a C\+\+17 compiler"):
        load_native_library({"PATH": "", "XDG_CACHE_HOME": str(tmp_path)}, lambda _: None)
