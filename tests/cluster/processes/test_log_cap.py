"""A log that has become too large is moved away while its writer goes on."""

from pathlib import Path

from shardline_cluster.processes.log_cap import cap_log


def test_a_log_that_is_too_large_is_moved_and_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "router.log"

    with log.open("ab", buffering=0) as writer:
        writer.write(b"0123456789")
        cap_log(log, most_bytes=9)
        writer.write(b"on")

    assert log.read_bytes() == b"on"
    assert (tmp_path / "router.log.1").read_bytes() == b"0123456789"


def test_only_the_last_part_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "router.log"

    for text in (b"first", b"second", b"third"):
        log.write_bytes(text)
        cap_log(log, most_bytes=2)

    assert sorted(file.read_bytes() for file in tmp_path.iterdir()) == [b"", b"third"]


def test_a_small_log_and_one_that_is_gone_are_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "router.log"
    log.write_bytes(b"ab")

    cap_log(log, most_bytes=2)
    cap_log(tmp_path / "gone.log", most_bytes=2)

    assert [file.name for file in tmp_path.iterdir()] == ["router.log"]
    assert log.read_bytes() == b"ab"
