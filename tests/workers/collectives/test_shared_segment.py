"""Files in shared memory are refused where they cannot be what ranks need, and swept where nobody holds them."""

import fcntl
import os
from pathlib import Path

import pytest

from shardline_workers.collectives.errors import CommunicatorError
from shardline_workers.collectives.shared_segment import SHARED_MEMORY, SharedSegment, sweep_segments


def test_ranks_of_one_name_have_one_file_of_zeros_for_their_user_alone(tmp_path: Path) -> None:
    first, second = (SharedSegment("one", 4096, folder=tmp_path) for _ in range(2))

    os.pwrite(first.file, b"written", 0)

    assert os.pread(second.file, 8, 0) == b"written\0"
    assert os.fstat(first.file).st_mode & 0o777 == 0o600
    first.close()
    second.close()


def test_more_than_there_is_is_refused_with_the_remedy_and_leaves_nothing(tmp_path: Path) -> None:
    system = os.statvfs(SHARED_MEMORY)
    name = f"too-large-{os.getpid()}"

    with pytest.raises(
        CommunicatorError, match=r"/dev/shm has \d+ bytes free of \d+: give it more \(docker run --shm-size"
    ):
        SharedSegment(name, system.f_blocks * system.f_frsize + 4096)

    assert not list(SHARED_MEMORY.glob(f"*{name}"))


def test_a_host_without_shared_memory_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CommunicatorError, match="mount a tmpfs there, or exchange by gloo"):
        SharedSegment("one", 4096, folder=tmp_path / "missing")


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "x" * 101])
def test_a_name_that_is_no_name_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CommunicatorError, match="a group's name must be 1 to 100 letters"):
        SharedSegment(name, 4096, folder=tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "shardline-ranks-one").symlink_to(target)

    with pytest.raises(CommunicatorError, match="cannot be opened"):
        SharedSegment("one", 4096, folder=tmp_path)

    assert not target.exists()


def test_only_files_of_groups_that_nobody_holds_are_swept(tmp_path: Path) -> None:
    held = SharedSegment("held", 4096, folder=tmp_path)
    left, other = tmp_path / "shardline-ranks-left", tmp_path / "something-else"
    left.touch()
    other.touch()

    swept = sweep_segments(folder=tmp_path)

    assert swept == [left]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shardline-ranks-held", "something-else"]
    held.close()
    assert [path.name for path in sweep_segments(folder=tmp_path)] == ["shardline-ranks-held"]


def test_a_file_that_is_swept_between_opening_and_locking_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shardline-ranks-one"
    lock = fcntl.flock
    stolen: list[Path] = []

    def slow_lock(file: int, operation: int) -> None:
        if not stolen:
            stolen.append(path)
            path.unlink()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", slow_lock)
    segment = SharedSegment("one", 4096, folder=tmp_path)

    assert os.path.samestat(path.stat(), os.fstat(segment.file))
    segment.close()
