"""A model that a user names, found among what lies on this machine."""

from pathlib import Path

from shardline_cluster.cli.cached_choice import choose_cached
from shardline_cluster.errors import ConfigurationError
from shardline_workers.files.cached_models import cached_files
from shardline_workers.files.hub_source import HUB_PREFIX
from shardline_workers.files.model_source import ALIASES, PACKAGE_PREFIX, ModelFiles, resolve_model


def find_model(asked: str, cache_folder: Path) -> tuple[ModelFiles, str]:
    """The model's files, and its licence where the hub told it. Nothing is fetched.

    Raises:
        ConfigurationError: it is not in the cache, or not whole.
        ModelFileError: there is no such file or folder, or it is broken.
    """
    if not ALIASES.get(asked, asked).startswith((HUB_PREFIX, PACKAGE_PREFIX)):
        return resolve_model(asked, cache_folder=cache_folder, report=lambda _: None), ""
    model = choose_cached(asked, cache_folder)
    if model.path is None:
        raise ConfigurationError(f"{model.name} was not fetched to its end: `shardline pull {asked}` goes on with it")
    return cached_files(model, model.path, cache_folder), model.licence
