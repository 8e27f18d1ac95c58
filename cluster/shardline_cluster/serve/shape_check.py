"""Whether the engine can deal a model's own file to the ranks that were asked for: quantised weights lie in blocks that
no cut may go through. A router, which has no engine, can only judge by heads, layers and widths."""

from pathlib import Path

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.asked_shape import fixed_plan
from shardline_cluster.fleet.deployment import Deployment
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.model_source import resolve_model


def check_shape(deployment: Deployment, *, cache_folder: Path) -> None:
    """Looks at the headers of a model that is in the cache.

    Raises:
        ConfigurationError: it cannot be dealt so; the text says why, and which shape is the nearest.
    """
    plan = fixed_plan(deployment.options)
    if deployment.size is None or plan is None or plan.num_ranks == 1:
        return
    # Imported here since it brings torch, which `serve` of one rank does without.
    from shardline_workers.models.checkpoint import open_checkpoint
    from shardline_workers.models.input_blocks import InputBlocks
    from shardline_workers.models.tensor_split import check_split

    try:
        files = resolve_model(deployment.model, cache_folder=cache_folder, report=lambda _line: None)
        with open_checkpoint(files) as checkpoint:
            check_split(checkpoint.shape, plan, InputBlocks.of(checkpoint))
    except (ModelFileError, ValueError) as error:
        raise ConfigurationError(str(error)) from error
