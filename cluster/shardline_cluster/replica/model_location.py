"""Where the model of a replica lies on this host. It may be fetched for minutes."""

import os
from collections.abc import Callable
from pathlib import Path

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_workers.files.model_source import ModelFiles, resolve_model


def find_model(spec: ReplicaSpec, *, report: Callable[[str], None]) -> ModelFiles:
    """The files of the deployment's model.

    Raises:
        ConfigurationError: they are others than the deployment's.
        ModelFileError: they cannot be found or read.
    """
    files = resolve_model(spec.deployment.model, cache_folder=default_cache_folder(), report=report)
    _check_digest(spec, files)
    return files


def default_cache_folder() -> Path:
    """Where fetched models lie: `$XDG_CACHE_HOME/shardline`, by default `~/.cache/shardline`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shardline"


def _check_digest(spec: ReplicaSpec, files: ModelFiles) -> None:
    """A lane belongs to one weights digest: other weights would go on with other people's sentences."""
    wanted = spec.deployment.weights_digest
    if files.digest != wanted:
        raise ConfigurationError(
            f"{spec.deployment.model} has the weights digest {files.digest} on this machine, but the lane "
            f"{spec.deployment.lane} belongs to {wanted}: deploy the model anew, or bring the same files here"
        )
