"""The environment of every process that `serve` starts."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

# What `serve` itself has read, and tells those that need it in their configuration.
SECRETS = frozenset({"SHARDLINE_API_KEY", "SHARDLINE_REDIS_URL", "REDIS_URL"})


def child_environment(additions: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """This process's environment, with `additions`, in which Python finds the packages that this process has found.

    Processes of Ray work in other folders: relative entries of the module path would lead nowhere there.
    """
    found = dict.fromkeys(str(Path(entry).resolve()) for entry in sys.path if entry and Path(entry).is_dir())
    inherited = [entry for entry in found if not _belongs_to_python(entry)]
    path = {"PYTHONPATH": os.pathsep.join(inherited)} if inherited else {}
    own = {name: value for name, value in environment.items() if name not in SECRETS}
    return {**own, **path, "PYTHONUNBUFFERED": "1", **additions}


def _belongs_to_python(entry: str) -> bool:
    """Whether every Python of this installation looks there by itself."""
    return any(Path(entry).is_relative_to(prefix) for prefix in (sys.prefix, sys.base_prefix))
