"""From the MODEL that an operator names to the deployment that goes into Redis."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.asked_shape import is_one_rank, refuse_impossible_shape
from shardline_cluster.fleet.deployment import DEFAULT_CLUSTER, Deployment, EngineOptions
from shardline_cluster.fleet.engine_bounds import SIMULATED, cache_tokens
from shardline_cluster.planning.model_size import ModelSize, size_files
from shardline_workers.files.hub_source import HUB_PREFIX, parse_hub_source
from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.model_source import ALIASES, Fetching, ModelFiles, ModelKind, refuse_missing, resolve_model
from shardline_workers.models.quantised_checkpoints import refuse_quantised
from shardline_workers.text.chat_template import ChatTemplateError
from shardline_workers.text.generation_config import GenerationConfig, told_defaults
from shardline_workers.text.load_text_model import load_text_model
from shardline_workers.text.simulated_text import simulated_text_model
from shardline_workers.text.text_model import TextModel

DEFAULT_SIMULATED_LEN = 4_096
LONGEST_LANE_NAME = 80  # characters of the served name in a lane's name
DIGEST_CHARACTERS = 8
PACKAGE = "pypi:"


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedModel:
    """What an operator asks for."""

    model: str  # see `model_source`
    name: str  # what clients put into `model`
    num_replicas: int = 1
    engine: EngineOptions = field(default_factory=EngineOptions)  # with a chat template's text, not its file
    cluster: str = DEFAULT_CLUSTER
    offline: bool = False  # take the model from the cache, or refuse


def plan_deployment(wanted: WantedModel, *, cache_folder: Path, say: Callable[[str], None]) -> Deployment:
    """Finds the model, reads all of it but the tensors, and says how it is to be deployed. May download for minutes.

    Raises:
        ConfigurationError: the model cannot be served; the text says why.
    """
    try:
        model, text, size = _read_model(wanted, cache_folder=cache_folder, say=say)
    except (ModelFileError, ChatTemplateError) as error:
        raise ConfigurationError(str(error)) from error
    return Deployment(
        name=wanted.name,
        model=model,
        lane=lane_name(wanted.name, text.weights_digest),
        weights_digest=text.weights_digest,
        max_model_len=_longest_kept(wanted.engine, text),
        num_replicas=wanted.num_replicas,
        options=wanted.engine,
        cluster=wanted.cluster,
        size=size,
    )


def refuse_missing_model(model: str) -> None:
    """Looks whether a model that is named by its path is there, and fetches nothing.

    Raises:
        ConfigurationError: it is not; the text says what could be given.
    """
    try:
        if model != SIMULATED:
            refuse_missing(model)
    except ModelFileError as error:
        raise ConfigurationError(str(error)) from error


def served_name(model: str) -> str:
    """The name for clients where none was given: the alias, the package, the repository, or the name of the file or
    folder.

    Raises:
        ConfigurationError: it looks like a repository of the hub, but is none.
    """
    if model in ALIASES or model == SIMULATED:
        return model
    if model.startswith(PACKAGE):
        return model.removeprefix(PACKAGE).partition("==")[0]
    if model.startswith(HUB_PREFIX):
        try:
            return parse_hub_source(model).short_name
        except ModelFileError as error:
            raise ConfigurationError(str(error)) from error
    path = Path(model).expanduser()
    return path.stem if path.suffix == ".gguf" else path.resolve().name


def lane_name(name: str, weights_digest: str) -> str:
    """The lane of a model: other weights under the same name get another one."""
    safe = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-._")[:LONGEST_LANE_NAME]
    return f"{safe or 'model'}-{weights_digest[:DIGEST_CHARACTERS]}"


def longest_request(asked: int | None, text: TextModel) -> int:
    """Tokens of prompt and output together: what was asked for, else the model's context.

    Raises:
        ConfigurationError: the model's context is shorter than that.
    """
    if asked is not None and not 1 <= asked <= text.max_model_len:
        raise ConfigurationError(
            f"--max-model-len is {asked}, but must be 1 to {text.max_model_len}, the longest context of this model"
        )
    return asked or text.max_model_len


def _refuse_quantised(files: ModelFiles) -> None:
    """Replicas would refuse it too, but only once everything else has been started."""
    if files.kind is ModelKind.FOLDER:
        refuse_quantised(ModelFacts.read_json(files.path / "config.json"))


def _longest_kept(engine: EngineOptions, text: TextModel) -> int:
    """The same, where the KV cache that was asked for holds it."""
    longest, holds = longest_request(engine.max_model_len, text), cache_tokens(engine)
    if holds is not None and holds < longest:
        raise ConfigurationError(
            f"--kv-cache-tokens {engine.kv_cache_tokens} holds {holds} tokens in whole blocks, but requests of this "
            f"model may have {longest}: raise it to {longest} or more, or add --max-model-len {holds} or less"
        )
    return longest


def _read_model(
    wanted: WantedModel, *, cache_folder: Path, say: Callable[[str], None]
) -> tuple[str, TextModel, ModelSize | None]:
    """Where replicas find the model, its text side, and its size where that decides about the shape of replicas."""
    engine = wanted.engine
    if engine.engine == SIMULATED:
        return SIMULATED, simulated_text_model(engine.max_model_len or DEFAULT_SIMULATED_LEN), None
    fetching = Fetching(offline=wanted.offline, bars=sys.stderr is not None and sys.stderr.isatty())
    files = resolve_model(wanted.model, cache_folder=cache_folder, report=say, fetching=fetching)
    _refuse_quantised(files)
    size = None if is_one_rank(engine) else size_files(files)
    if size is not None:
        refuse_impossible_shape(engine, size.shape)
    text = load_text_model(
        files,
        name=wanted.name,
        chat_template=engine.chat_template,
        generation_config=GenerationConfig(engine.generation_config),
    )
    if told := told_defaults(text.defaults):
        say(f"sampling defaults of the model: {', '.join(f'{name} {value:g}' for name, value in told.items())}")
    return files.pinned, text, size
