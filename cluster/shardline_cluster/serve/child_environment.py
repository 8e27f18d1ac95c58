"""The environment of every process that `serve` starts."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

KEY_VARIABLE = "SHARDLINE_API_KEY"  # a secret that no child needs: routers are told digests


def child_environment(additions: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """This process's environment, with `additions`, in which Python finds the packages that this process has found.

    Processes of Ray work in other folders: relative entries of the module path would lead nowhere there.
    """
    found = dict.fromkeys(str(Path(entry).resolve()) for entry in sys.path if entry and Path(entry).is_dir())
    inherited = [entry for entry in found if not _belongs_to_python(entry)]
    path = {"PYTHONPATH": os.pathsep.join(inherited)} if inherited else {}
    kept = {name: value for name, value in environment.items() if name != KEY_VARIABLE}
    return {**kept, **path, "PYTHONUNBUFFERED": "1", **additions}


def _belongs_to_python(entry: str) -> bool:
    """Whether every Python of this installation looks there by itself."""
    return any(Path(entry).is_relative_to(prefix) for prefix in (sys.prefix, sys.base_prefix))
