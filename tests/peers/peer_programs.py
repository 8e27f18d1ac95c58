"""Other people's programs in a virtual environment of their own, which `make peers` makes and `make test` names.

Where it is not there a test is skipped, unless SHARDLINE_REQUIRED_PEERS is set, as in continuous integration.
"""

import os
import subprocess
from pathlib import Path

import pytest

FOLDER = "SHARDLINE_TEST_PEERS"
REQUIRED = "SHARDLINE_REQUIRED_PEERS"
LIMIT_S = 60.0


def peer_program(name: str) -> Path:
    """A program of that environment; skips the test where there is none, or fails it."""
    folder = os.environ.get(FOLDER)
    if folder and (Path(folder) / ".ready").exists():
        return Path(folder) / "bin" / name
    why = f"{FOLDER} names no environment with tritonclient and grpcurl in it: `make peers` makes one"
    if os.environ.get(REQUIRED):
        pytest.fail(f"{why}, and {REQUIRED} says that they must be tested")
    pytest.skip(why)


def run_peer(name: str, *arguments: str, expect: int = 0) -> str:
    """What it prints, errors included; it must exit with this code. It sees nothing of ours."""
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    program = peer_program(name)
    told = subprocess.run(
        [program, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert told.returncode == expect, f"{name} exited with {told.returncode}: {told.stdout}"
    return told.stdout
