from pathlib import Path

import pytest

from benchmarks.process_memory import main, memory_report, read_memory

SMAPS = """\
7f10-7f20 r--p 00000000 fe:00 77                    /cache/packed/a b.packed
Rss:                  40 kB
Pss:                  20 kB
VmFlags: rd mr
7f30-7f40 rw-p 00000000 00:00 0
Rss:                 100 kB
7f50-7f60 r--s 00000000 fe:00 78                    /models/m.gguf (deleted)
Rss:                   8 kB
7f70-7f80 r-xp 00000000 fe:00 79                    /lib/libc.so
Rss:                1000 kB
"""


def add_process(proc: Path, pid: int, parent: int, command: str, *, pss_kib: int) -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "cmdline").write_bytes(command.replace(" ", "\0").encode() + b"\0")
    (folder / "stat").write_text(f"{pid} (a name) S {parent} 0 0")
    (folder / "smaps").write_text(SMAPS)
    (folder / "smaps_rollup").write_text(
        f"7f10-7ffe ---p 00000000 00:00 0 [rollup]\nRss: 1148 kB\nPss: {pss_kib} kB\nAnonymous: 100 kB\n"
    )


def test_each_process_tells_its_share_and_what_it_holds_of_files_of_weights(tmp_path: Path) -> None:
    add_process(tmp_path, 10, 1, "python -m shardline_cluster.cli.main serve m", pss_kib=300)
    add_process(tmp_path, 20, 10, "python -m shardline_cluster.replica.replica_process", pss_kib=900)
    add_process(tmp_path, 30, 1, "a stranger", pss_kib=5_000)

    replica, serve = read_memory(10, tmp_path)

    assert (replica.role, replica.pss, replica.rss, replica.anonymous) == ("replica", 900 << 10, 1148 << 10, 100 << 10)
    assert replica.weights_files == 48 << 10
    assert (serve.role, serve.pss) == ("serve", 300 << 10)


def test_processes_of_one_role_are_added_up_largest_first(tmp_path: Path) -> None:
    add_process(tmp_path, 10, 1, "python -m shardline_cluster.cli.main serve m", pss_kib=1024)
    for pid in (20, 30):
        add_process(tmp_path, pid, 10, "python default_worker.py --node-ip-address=127.0.0.3", pss_kib=2048)

    report = memory_report(read_memory(10, tmp_path))

    assert report["total_pss_mib"] == 5.0
    roles = report["by_role_mib"]
    assert isinstance(roles, dict)
    assert list(roles) == ["ray idle worker", "serve"]
    assert (roles["ray idle worker"]["processes"], roles["ray idle worker"]["pss"]) == (2, 4.0)


def test_a_process_that_is_not_there_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["999999999"]) == 1
    assert "there is no process 999999999" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("python process_tree.py 1.0 python -m ray.scripts.scripts start --head", "process tree"),
        ("python -P -m ray.scripts.scripts start --head", "ray start"),
        ("ray::ReplicaActor", "replica"),
        ("ray::RuntimeEnvAgent", "ray agent of environments"),
    ],
)
def test_what_ray_starts_has_a_name_too(tmp_path: Path, command: str, role: str) -> None:
    add_process(tmp_path, 10, 1, command, pss_kib=1)

    assert [memory.role for memory in read_memory(10, tmp_path)] == [role]
