import os
from pathlib import Path

import pytest

from benchmarks.process_cpu import ProcessCpu, cpu_report, main, read_cpu, role_of


def add_process(proc: Path, pid: int, parent: int, command: str, threads: dict[str, float]) -> None:
    """A process as /proc shows it; `threads` are CPU seconds by name, the first is the process's own."""
    folder = proc / str(pid)
    (folder / "task").mkdir(parents=True)
    (folder / "cmdline").write_bytes(command.replace(" ", "\0").encode() + b"\0")
    (folder / "stat").write_text(f"{pid} (a name) with) S {parent} 0 0")
    for number, (name, cpu_s) in enumerate(threads.items()):
        task = folder / "task" / str(pid + number)
        task.mkdir()
        (task / "comm").write_text(name + "\n")
        (task / "schedstat").write_text(f"{int(cpu_s * 1e9)} 5 6\n")


def test_the_whole_tree_below_a_process_is_read_and_nothing_beside_it(tmp_path: Path) -> None:
    add_process(tmp_path, 10, 1, "python -m shardline_cluster.cli.main serve model", {"python": 1.0})
    add_process(tmp_path, 20, 10, "python -P -m shardline_cluster.router.router_process", {"python": 2.0, "grpc": 0.5})
    add_process(tmp_path, 30, 20, "/usr/bin/redis-server unixsocket:/x", {"redis-server": 3.0})
    add_process(tmp_path, 40, 1, "a stranger", {"stranger": 4.0})

    read = read_cpu(10, tmp_path)

    found = {(role, name): cpu_s for (role, _, name), cpu_s in read.threads.items()}
    assert found == {
        ("serve", "python"): 1.0,
        ("router", "python"): 2.0,
        ("router", "grpc"): 0.5,
        ("redis", "redis-server"): 3.0,
    }


def test_where_the_scheduler_keeps_no_books_the_clock_ticks_count(tmp_path: Path) -> None:
    add_process(tmp_path, 10, 1, "shardline serve y", {"python": 1.0})
    task = tmp_path / "10" / "task" / "10"
    (task / "schedstat").unlink()
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    (task / "stat").write_text(f"10 (python) S 1 0 0 0 0 0 0 0 0 0 {2 * ticks_per_s} {ticks_per_s} 0")

    assert list(read_cpu(10, tmp_path).threads.values()) == [3.0]


def test_a_keeper_is_told_from_the_replica_that_its_command_names() -> None:
    assert role_of("python replica_keeper.py x 1 python -m shardline_cluster.replica.replica_process", 2) == "keeper"
    assert role_of("python -m shardline_cluster.replica.replica_process", 2) == "replica"
    assert role_of("anything", os.getpid()) == "client"
    assert role_of("/usr/bin/stranger --x", 7) == "stranger 7"


def test_what_ray_runs_beside_the_replica_is_rays() -> None:
    assert role_of("ray::ReplicaActor.ended", 2) == "replica"
    assert role_of("ray::DashboardAgent", 2) == "ray"
    assert role_of("/venv/site-packages/ray/core/src/ray/gcs/gcs_server --x", 2) == "ray"


def test_a_report_divides_what_was_used_meanwhile_by_the_tokens() -> None:
    before = ProcessCpu(10.0, {("router", 1, "python"): 5.0, ("keeper", 9, "python"): 1.0})
    after = ProcessCpu(12.0, {("router", 1, "python"): 6.0, ("router", 2, "grpc"): 0.5, ("keeper", 9, "python"): 1.0})

    report = cpu_report(before, after, num_tokens=1000)

    assert report == {
        "wall_s": 2.0,
        "cores_used": 0.75,
        "cpu_ms_per_token": 1.5,
        "by_process": {"router": 1.5},
        "by_thread": {"router/python": 1.0, "router/grpc": 0.5},
    }


def test_a_process_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ProcessLookupError, match="no process 77"):
        read_cpu(77, tmp_path)

    assert main([str(2**22 + 1), "--seconds", "0"]) == 1
    assert "no process" in capsys.readouterr().err
