"""Which processes belong to a tree, and what memory they take."""

import os
from pathlib import Path

import pytest

from benchmarks.process_tree import memory_totals, process_stats, pss_mib, tree_in, tree_of


def add_process(proc: Path, pid: int, parent: int) -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "stat").write_text(f"{pid} (a name) with) S {parent} 0 0")
    (folder / "smaps_rollup").write_text("7f10-7ffe ---p 00000000 00:00 0 [rollup]\nRss: 8 kB\nPss: 4 kB\n")


def test_a_tree_is_told_parents_first_without_strangers(tmp_path: Path) -> None:
    for pid, parent in ((30, 20), (20, 10), (10, 1), (40, 1)):
        add_process(tmp_path, pid, parent)

    assert tree_of(10, tmp_path) == [10, 20, 30]


def test_a_root_that_has_ended_is_an_error_or_told_alone(tmp_path: Path) -> None:
    add_process(tmp_path, 10, 1)

    with pytest.raises(ProcessLookupError, match="there is no process 11"):
        tree_of(11, tmp_path)
    assert tree_in(process_stats(tmp_path), 11) == [11]


def test_memory_is_told_in_bytes_by_the_kernels_names(tmp_path: Path) -> None:
    add_process(tmp_path, 10, 1)

    assert memory_totals(10, tmp_path) == {"Rss": 8 << 10, "Pss": 4 << 10}


def test_processes_that_have_ended_take_no_memory() -> None:
    assert pss_mib([999_999_999]) == 0
    assert pss_mib([os.getpid(), 999_999_999]) > 1
