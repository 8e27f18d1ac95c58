"""`shardline models`: what lies in the cache of this machine."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardline_cluster.cli.short_source import short_source
from shardline_cluster.cli.text_table import table
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.replica.model_location import default_cache_folder
from shardline_workers.files.byte_size import shown_bytes
from shardline_workers.files.cached_models import CachedModel, cached_files, cached_models
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.model_summary import summarise

_DESCRIPTION = """\
Lists the models in the cache of this machine ($XDG_CACHE_HOME/shardline, else ~/.cache/shardline), with the parts of
those that were not fetched to their end. For the models that a cluster serves, see `shardline status`.
"""
_PARTIAL = "partial"
_BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """One line of the list."""

    name: str
    source: str
    format: str  # GGUF Q4_1, safetensors BF16; partial; broken
    family: str
    num_bytes: int
    digest: str
    used_at: float  # seconds since 1970
    path: str


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "models", help="list the models in the cache", description=_DESCRIPTION
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Lists.

    Raises:
        ConfigurationError: the cache cannot be read.
    """
    cache_folder = default_cache_folder()
    try:
        rows = [describe(model, cache_folder) for model in cached_models(cache_folder)]
    except OSError as error:
        raise ConfigurationError(f"the cache at {cache_folder} cannot be read: {error.strerror}") from error
    if arguments.json:
        print(to_json(rows))
    elif rows:
        print(render(rows, now=time.time()), end="")
    else:
        print(f"no model is in the cache at {cache_folder}: fetch one with `shardline pull smollm2:135m`")
    return 0


def describe(model: CachedModel, cache_folder: Path) -> ModelRow:
    """A model's line; its header is read for it."""
    form, family, digest = _PARTIAL, "", ""
    if model.path is not None:
        try:
            files = cached_files(model, model.path, cache_folder)
            summary = summarise(files)
            form, family, digest = f"{summary.format} {summary.main_type}", summary.family, files.digest
        except ModelFileError:
            form = _BROKEN
    return ModelRow(
        name=model.name,
        source=model.source,
        format=form,
        family=family,
        num_bytes=model.num_bytes,
        digest=digest,
        used_at=model.used_at,
        path=str(model.path or model.folder),
    )


def render(rows: Sequence[ModelRow], *, now: float) -> str:
    """The list as a table."""
    header = ("NAME", "FORMAT", "FAMILY", "SIZE", "DIGEST", "USED", "SOURCE")
    return table(header, [_cells(row, now) for row in rows])


def _cells(row: ModelRow, now: float) -> tuple[str, ...]:
    return (
        short_source(row.name),
        row.format,
        row.family or "-",
        shown_bytes(row.num_bytes),
        row.digest or "-",
        _ago(now - row.used_at),
        row.source,
    )


def _ago(seconds: float) -> str:
    if seconds < 60:
        return "just now"
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    raise AssertionError("a minute or more is some minutes")
