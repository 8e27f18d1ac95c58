"""Who has a file mapped."""

import mmap
import os
from pathlib import Path

from shardline_cluster.processes.mapped_files import pids_that_map


def test_this_process_is_found_by_the_file_that_it_maps(tmp_path: Path) -> None:
    path = tmp_path / "model one.gguf"
    path.write_bytes(b"x" * 100)
    before = pids_that_map([f"{tmp_path}/"])

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        found = pids_that_map([str(path)])
        others = pids_that_map([f"{tmp_path}/other"])

    assert (before, found, others) == ([], [os.getpid()], [])


def test_processes_that_cannot_be_looked_into_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "12").mkdir()
    (tmp_path / "13").mkdir()
    (tmp_path / "13" / "maps").write_text(
        "7f00-7f01 r--p 00000000 08:01 42    /models/a.gguf\n7f02-7f03 rw-p 0 0:0 0 \n"
    )

    assert pids_that_map(["/models/"], tmp_path) == [13]
