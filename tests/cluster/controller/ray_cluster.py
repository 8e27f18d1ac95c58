"""A Ray cluster of one head and one node for the tests of a module, started as `serve` starts it, but without a token.

Ray reads the token's place when it is imported, which may long have happened in a process that runs tests.
"""

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from shardline_cluster.processes import process_tree
from shardline_cluster.processes.child_process import start_child, stop_child
from shardline_cluster.serve.child_environment import child_environment
from shardline_cluster.serve.ports import free_port
from shardline_cluster.serve.ray_plan import HEAD_IP, STARTED, RayPlan

START_WITHIN_S = 90.0
OPEN = {"RAY_AUTH_MODE": "disabled"}


@contextmanager
def running_ray_cluster() -> Iterator[RayPlan]:
    """Head and node; both are gone with all their processes at the end."""
    with tempfile.TemporaryDirectory(prefix="sl-", dir="/tmp") as folder:
        plan = RayPlan(
            ray_command=(sys.executable, "-m", "ray.scripts.scripts"),
            folder=Path(folder),
            gcs_port=free_port(HEAD_IP),
            client_port=free_port(HEAD_IP),
        )
        with (
            _started(plan.head_command(), {**plan.head_environment(), **OPEN}, plan.folder / "head.log"),
            _started(plan.node_command(), {**plan.environment(), **OPEN}, plan.folder / "node.log"),
        ):
            yield plan


@contextmanager
def _started(command: tuple[str, ...], environment: Mapping[str, str], log: Path) -> Iterator[None]:
    shim = [sys.executable, "-S", "-E", process_tree.__file__, "1.0"]
    with log.open("wb") as output:
        child = start_child([*shim, *command], environment=child_environment(environment), output=output)
    try:
        deadline = time.monotonic() + START_WITHIN_S
        while STARTED.encode() not in log.read_bytes():
            assert child.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        stop_child(child, grace_s=10.0)
