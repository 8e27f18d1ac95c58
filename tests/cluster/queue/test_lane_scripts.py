"""Every script is loaded behind one prelude, says what it takes and answers, and works while memory is full."""

import hashlib
import os
import subprocess
import sys
from importlib.resources import files

import pytest

from shardline_cluster.queue.lane_scripts import PRELUDE, SCRIPTS, load_lane_scripts

FOLDER = files("shardline_cluster.queue") / "scripts"


def test_every_file_is_loaded() -> None:
    scripts = {entry.name for entry in FOLDER.iterdir() if entry.name.endswith(".lua")}
    prelude = {entry.name for entry in (FOLDER / "prelude").iterdir()}

    assert scripts == {f"{name}.lua" for name in SCRIPTS}
    assert prelude == {f"{name}.lua" for name in (*PRELUDE, "server")}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_head_documents_keys_arguments_and_reply(name: str) -> None:
    lines = (FOLDER / f"{name}.lua").read_text().splitlines()
    head = lines[1 : next(i for i, line in enumerate(lines[1:], 1) if not line.startswith("--"))]

    assert head[0].startswith(f"-- {name}: ")
    for part in ("-- KEYS  1 lane", "-- ARGV  1 terms", "-- Reply "):
        assert any(line.startswith(part) for line in head), f"{name}.lua does not say {part}"


@pytest.mark.parametrize("name", SCRIPTS)
def test_only_submit_is_refused_while_memory_is_full(name: str) -> None:
    first_line = load_lane_scripts()[name].text.split("\n", 1)[0]

    assert first_line == ("#!lua" if name == "submit" else "#!lua flags=allow-oom")


@pytest.mark.process
def test_they_are_read_in_the_same_way_under_every_locale() -> None:
    environment = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    told = "from shardline_cluster.queue.lane_scripts import load_lane_scripts as l; print(l()['claim'].sha)"

    under_c = subprocess.run([sys.executable, "-c", told], env=environment, capture_output=True, text=True, check=True)

    assert under_c.stdout.strip() == load_lane_scripts()["claim"].sha


def test_another_server_part_replaces_clock_and_identity_alone() -> None:
    ours, tests = load_lane_scripts()["view"], load_lane_scripts("-- test")["view"]

    assert "'TIME'" in ours.text
    assert "'TIME'" not in tests.text
    assert ours.text.split("local LANE")[1] == tests.text.split("local LANE")[1]
    assert tests.sha == hashlib.sha1(tests.text.encode()).hexdigest()
