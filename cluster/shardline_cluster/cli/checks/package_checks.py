"""Whether Python and the packages that a server needs are here. Nothing is imported: their metadata is read."""

import importlib.util
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata

from shardline_cluster.cli.checks.finding import Finding, Level, broken, doubtful, good
from shardline_cluster.errors import EmbeddedServerError
from shardline_cluster.queue.server_binary import find_server_binary, server_version
from shardline_cluster.serve.serve_options import LauncherKind, choose_launcher

OLDEST_PYTHON = (3, 11)
# Distribution → the extra that brings it, and what does not work without it.
_NEEDED: Mapping[str, tuple[str, str]] = {
    "grpcio": ("cluster", "nothing works"),
    "protobuf": ("cluster", "nothing works"),
    "redis": ("cluster", "`serve` and `status` do not work"),
    "tokenizers": ("cluster", "`serve` does not work"),
    "jinja2": ("cluster", "`serve` does not work"),
    "uvloop": ("cluster", "`serve` does not work"),
    "numpy": ("workers", "this machine can run routers and the simulated engine, but no model"),
    "torch": ("workers", "this machine can run routers and the simulated engine, but no model"),
}
_OPTIONAL: Mapping[str, tuple[str, str]] = {
    "PyYAML": ("cluster", "--config does not work"),
    "huggingface_hub": ("hub", "hf:org/name does not work"),
}


def check_python(version: tuple[int, ...] = sys.version_info[:2]) -> Finding:
    """Its version."""
    if version < OLDEST_PYTHON:
        told = ".".join(map(str, version))
        return broken("Python", told, "Shardline needs Python 3.11 or newer: install it, and Shardline into it.")
    return good("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def check_packages() -> Iterator[Finding]:
    """Whether they are installed, and new enough for what Shardline's own metadata says."""
    oldest = _oldest_versions()
    for table, level in ((_NEEDED, Level.BROKEN), (_OPTIONAL, Level.DOUBTFUL)):
        for name, (extra, loss) in table.items():
            yield _package(name, oldest.get(name.lower()), level, extra=extra, loss=loss)


def check_launcher() -> Finding:
    """Who would start replicas."""
    kind, note = choose_launcher(None, ray_address=None)
    if kind is LauncherKind.RAY:
        return good("Ray", f"{_version('ray')}; it starts replicas, unless --launcher local says otherwise")
    return doubtful("Ray", note, "That is enough on one machine; a cluster of several needs Ray.")


def check_server_binary(*, is_needed: bool) -> Finding:
    """Whether a Redis or Valkey server can be embedded; it `is_needed` where no --redis-url is given."""
    try:
        binary = find_server_binary()
    except EmbeddedServerError as error:
        if not is_needed:
            return good("Redis server to embed", "none, and --redis-url makes it unnecessary")
        return broken("Redis server to embed", "none of version 7 or newer", f"{error}.")
    version = ".".join(map(str, server_version(binary) or ()))
    return good("Redis server to embed", f"{version} at {binary}")


def _package(name: str, oldest: str | None, level: Level, *, extra: str, loss: str) -> Finding:
    version = _version(name)
    if version is None:
        found = f"not installed: {loss}"
    elif oldest is not None and _numbers(version) < _numbers(oldest):
        found = f"{version}, but {oldest} or newer is needed"
    else:
        return good(name, version)
    return Finding(check=name, level=level, found=found, remedy=f"`pip install 'shardline[{extra}]'` brings it.")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None if importlib.util.find_spec(name) is None else "unknown version"


def _oldest_versions() -> dict[str, str]:
    """Package → oldest version; empty where Shardline runs from its sources."""
    try:
        requirements = metadata.requires("shardline") or []
    except metadata.PackageNotFoundError:
        return {}
    found = (re.match(r"([\w.-]+)\s*>=\s*([\d.]+)", requirement) for requirement in requirements)
    return {match[1].lower(): match[2] for match in found if match is not None}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])
