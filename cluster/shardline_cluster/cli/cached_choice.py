"""The one model in the cache that a user means."""

from pathlib import Path

from shardline_cluster.cli.short_source import short_source
from shardline_cluster.errors import ConfigurationError
from shardline_workers.files.cached_models import CachedModel, find_cached
from shardline_workers.files.model_file_error import ModelFileError


def choose_cached(asked: str, cache_folder: Path) -> CachedModel:
    """That model.

    Raises:
        ConfigurationError: it is not in the cache, or several may be meant; the text names them.
    """
    try:
        found = find_cached(asked, cache_folder)
    except (ModelFileError, OSError) as error:
        raise ConfigurationError(str(error)) from error
    if not found:
        raise ConfigurationError(
            f"{asked} is not in the cache at {cache_folder}: `shardline models` lists what is there, "
            f"`shardline pull {asked}` fetches it"
        )
    if len(found) > 1:
        names = ", ".join(short_source(model.name) for model in found)
        raise ConfigurationError(
            f"{asked} may mean {len(found)} models ({names}): name one as `shardline models` shows its source"
        )
    return found[0]
