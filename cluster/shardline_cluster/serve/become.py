"""Turns a command into the process that it has configured: same process id, same terminal, same signals."""

import os
import sys
from collections.abc import Mapping
from typing import NoReturn

from shardline_cluster.serve.child_environment import child_environment


def become(module: str, environment: Mapping[str, str]) -> NoReturn:
    """Runs a module of `shardline_cluster` in the place of this program, with these variables added.

    Secrets travel in variables, which only this user can read, and never in the command line.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # -P: no module from the working directory
    command = (sys.executable, "-P", "-m", f"shardline_cluster.{module}")
    os.execve(sys.executable, command, child_environment(environment))
