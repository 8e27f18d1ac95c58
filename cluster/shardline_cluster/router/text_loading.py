"""From a deployment to the text side of its model, in the calling thread. No torch."""

import logging
from pathlib import Path

from shardline_cluster.fleet.deployment import Deployment
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.model_source import resolve_model
from shardline_workers.text.generation_config import GenerationConfig
from shardline_workers.text.load_text_model import load_text_model
from shardline_workers.text.simulated_text import simulated_text_model
from shardline_workers.text.text_model import TextModel

log = logging.getLogger(__name__)


def load_deployed_text(deployment: Deployment, cache_folder: Path) -> TextModel:
    """What a router needs to know of a model; fetches it where it is a package, so it may take as long as that.

    Raises:
        ModelFileError: the model cannot be found or read, or is not the one that was deployed.
        ChatTemplateError: its chat template is none.
    """
    if deployment.options.engine == "simulated":
        return simulated_text_model(deployment.max_model_len)
    files = resolve_model(deployment.model, cache_folder=cache_folder, report=log.info)
    if files.digest != deployment.weights_digest:
        raise ModelFileError.about(
            deployment.model,
            "this machine has other weights than those that were deployed",
            value=files.digest,
            bound=f"the weights digest {deployment.weights_digest}",
            remedy="Bring the same files here, or deploy the model anew.",
        )
    return load_text_model(
        files,
        name=deployment.name,
        chat_template=deployment.options.chat_template,
        generation_config=GenerationConfig(deployment.options.generation_config),
    )
