"""The run file: private, whole, and honest about dead processes."""

import os
import stat
import sys
from pathlib import Path

import pytest

from shardline_cluster.cli.run_file import (
    NotRunningError,
    RunFile,
    read_run_file,
    remove_run_file,
    run_file_path,
    run_folder,
    write_run_file,
)
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.processes.process_identity import ProcessIdentity

NO_SUCH_PID = 2**22 + 1  # above the kernel's largest pid


def a_run_file(*, name: str = "default", pid: int | None = None, process_started: int = 0) -> RunFile:
    return RunFile(
        name=name,
        endpoints=("127.0.0.1:50051", "127.0.0.1:50052"),
        redis_url="unix:///run/redis.sock",
        redis_prefix="shardline",
        pid=os.getpid() if pid is None else pid,
        started=1_700_000_000.5,
        process_started=process_started,
    )


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"XDG_RUNTIME_DIR": str(tmp_path)}


def test_what_is_written_is_read_again(environment: dict[str, str]) -> None:
    write_run_file(a_run_file(), environment)

    assert read_run_file("default", environment) == a_run_file()


def test_file_and_folder_are_for_their_user_alone(environment: dict[str, str]) -> None:
    path = write_run_file(a_run_file(), environment)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["default.json"]


def test_without_a_runtime_folder_it_lies_in_a_private_one_under_the_temp_folder(tmp_path: Path) -> None:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path / "missing"), "TMPDIR": str(tmp_path)}

    assert run_folder(environment) == tmp_path / f"shardline-{os.getuid()}"
    write_run_file(a_run_file(), environment)
    assert read_run_file("default", environment) == a_run_file()


def test_no_file_says_how_to_start_a_server(environment: dict[str, str]) -> None:
    with pytest.raises(NotRunningError, match=r"no server named 'default' is running.*shardline serve.*--endpoint"):
        read_run_file("default", environment)


def test_a_dead_process_is_named_as_such(environment: dict[str, str]) -> None:
    write_run_file(a_run_file(pid=NO_SUCH_PID), environment)

    with pytest.raises(NotRunningError, match=f"process {NO_SUCH_PID}.*no longer running"):
        read_run_file("default", environment)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when a process started")
def test_another_life_of_the_same_process_number_is_another_process(environment: dict[str, str]) -> None:
    started = ProcessIdentity.of_this_process().started
    write_run_file(a_run_file(process_started=started - 1), environment)

    with pytest.raises(NotRunningError, match="no longer running"):
        read_run_file("default", environment)
    write_run_file(a_run_file(process_started=started), environment)
    assert read_run_file("default", environment).process_started == started


def test_a_living_servers_name_is_not_taken(environment: dict[str, str]) -> None:
    write_run_file(a_run_file(pid=1), environment)

    with pytest.raises(ConfigurationError, match=r"running already \(process 1\).*--name"):
        write_run_file(a_run_file(), environment)


def test_a_dead_servers_name_is_taken_over(environment: dict[str, str]) -> None:
    write_run_file(a_run_file(pid=NO_SUCH_PID), environment)

    write_run_file(a_run_file(), environment)

    assert read_run_file("default", environment).pid == os.getpid()


def test_two_names_live_side_by_side(environment: dict[str, str]) -> None:
    write_run_file(a_run_file(name="a"), environment)
    write_run_file(a_run_file(name="b"), environment)

    assert read_run_file("a", environment).name == "a"
    assert read_run_file("b", environment).name == "b"


def test_only_its_own_process_removes_it(environment: dict[str, str]) -> None:
    path = write_run_file(a_run_file(), environment)

    remove_run_file("default", os.getpid() + 1, environment)
    assert path.exists()

    remove_run_file("default", os.getpid(), environment)
    assert not path.exists()

    remove_run_file("default", os.getpid(), environment)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-flag", "x" * 65])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="--name is"):
        run_file_path(name)


def test_a_file_that_others_may_read_is_refused(environment: dict[str, str]) -> None:
    path = write_run_file(a_run_file(), environment)
    path.chmod(0o644)

    with pytest.raises(ConfigurationError, match=r"open to other users \(mode 644\).*chmod"):
        read_run_file("default", environment)


def test_a_planted_link_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    environment = {"TMPDIR": str(tmp_path)}
    run_folder(environment).symlink_to(elsewhere)

    with pytest.raises(ConfigurationError, match="symbolic link"):
        write_run_file(a_run_file(), environment)


def test_a_broken_file_is_refused_with_its_text_and_does_not_block_a_new_server(environment: dict[str, str]) -> None:
    path = write_run_file(a_run_file(), environment)
    path.write_text('{"name": "default"}')

    with pytest.raises(ConfigurationError, match="this is no RunFile"):
        read_run_file("default", environment)
    write_run_file(a_run_file(), environment)
    assert read_run_file("default", environment) == a_run_file()
