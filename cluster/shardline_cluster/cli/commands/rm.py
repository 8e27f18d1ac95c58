"""`shardline rm MODEL`: deletes a model from the cache, unless a server on this machine uses it."""

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from shardline_cluster.cli import standard_input
from shardline_cluster.cli.cached_choice import choose_cached
from shardline_cluster.cli.run_file import RunFile, live_run_files
from shardline_cluster.errors import ConfigurationError, ShardlineError
from shardline_cluster.fleet.deployment_records import deployments_on_redis
from shardline_cluster.processes.mapped_files import pids_that_map
from shardline_cluster.replica.model_location import default_cache_folder
from shardline_workers.files.byte_size import shown_bytes
from shardline_workers.files.cached_models import CachedModel, cached_files, delete_cached
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.model_source import ALIASES

_DESCRIPTION = """\
Deletes a model from the cache, with the packed weights that were made of it; also the part of one that was not fetched
to its end. A model that a server on this machine serves stays. Models that lie elsewhere are never touched.
"""

PACKED_FOLDER = "packed"  # of the cache, where replicas keep weights in their kernels' layout


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "rm", help="delete a model from the cache", description=_DESCRIPTION
    )
    parser.add_argument("model", metavar="MODEL", help="as `shardline models` shows it")
    parser.add_argument("--yes", action="store_true", help="do not ask first")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Deletes.

    Raises:
        ConfigurationError: it is not there, or in use, or nobody agreed.
    """
    cache_folder = default_cache_folder()
    model = choose_cached(arguments.model, cache_folder)
    digest = _digest(model, cache_folder)
    _refuse_served(model, os.environ)
    _refuse_mapped(model, digest, cache_folder)
    if not arguments.yes and not _agreed(model):
        print("nothing was deleted", file=sys.stderr)
        return 1
    try:
        delete_cached(model)
        for path in _packed_weights(digest, cache_folder):
            path.unlink(missing_ok=True)
    except (ModelFileError, OSError) as error:
        raise ConfigurationError(f"{model.name} cannot be deleted: {error}") from error
    print(f"deleted {model.name} ({shown_bytes(model.num_bytes)})")
    return 0


def _agreed(model: CachedModel) -> bool:
    """Asks.

    Raises:
        ConfigurationError: nobody is there to answer.
    """
    if not standard_input.at_terminal():
        raise ConfigurationError(f"{model.name} is deleted only if you say --yes, since no terminal is there to ask")
    answer = standard_input.read_line(f"Delete {model.name} ({shown_bytes(model.num_bytes)})? [y/N] ")
    return (answer or "").strip().lower() in ("y", "yes")


def _refuse_mapped(model: CachedModel, digest: str | None, cache_folder: Path) -> None:
    """A replica that another host's controller wants maps the file, or the packed weights that were made of it."""
    files = [f"{model.folder.resolve()}/"]
    if digest is not None:
        files.append(f"{(cache_folder / PACKED_FOLDER).resolve()}/{digest}-")
    if pids := pids_that_map(files):
        told = ", ".join(map(str, pids))
        raise ConfigurationError(f"{model.name} is in use by process {told} on this machine: stop it first")


def _refuse_served(model: CachedModel, environment: Mapping[str, str]) -> None:
    for run_file in live_run_files(environment):
        if _serves(run_file, model):
            raise ConfigurationError(
                f"{model.name} is served by the server named {run_file.name!r} (process {run_file.pid}): stop it first"
            )


def _serves(run_file: RunFile, model: CachedModel) -> bool:
    """Whether one of a server's deployments is this model.

    Raises:
        ConfigurationError: its Redis does not tell.
    """
    try:
        sources = asyncio.run(_deployed_sources(run_file))
    except ShardlineError as error:
        raise ConfigurationError(
            f"nobody knows whether the server named {run_file.name!r} (process {run_file.pid}) uses {model.name}, "
            f"since its Redis does not answer: stop the server, or try again ({error})"
        ) from error
    return any(_is_same(source, model) for source in sources)


async def _deployed_sources(run_file: RunFile) -> list[str]:
    records = deployments_on_redis(run_file.redis_url, prefix=run_file.redis_prefix)
    try:
        await records.refresh()
        return [deployment.model for deployment in records.values.values()]
    finally:
        await records.close()


def _is_same(source: str, model: CachedModel) -> bool:
    """By name, or by a path inside its folder."""
    if ALIASES.get(source, source) == model.source:
        return True
    return Path(source).is_absolute() and Path(source).is_relative_to(model.folder.resolve())


def _digest(model: CachedModel, cache_folder: Path) -> str | None:
    """That of the weights; None for a part, or where the files cannot be read any more."""
    if model.path is None:
        return None
    with suppress(ModelFileError):
        return cached_files(model, model.path, cache_folder).digest
    return None


def _packed_weights(digest: str | None, cache_folder: Path) -> list[Path]:
    """Files that were made of this model alone: they begin with its digest."""
    return [] if digest is None else sorted((cache_folder / PACKED_FOLDER).glob(f"{digest}-*.packed"))
