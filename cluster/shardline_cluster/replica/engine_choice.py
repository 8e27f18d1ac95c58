"""From what a deployment asks for to an engine and the text side of its model. Imports torch only where it must."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import EngineOptions
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_workers.engine import Engine, EngineDescription
from shardline_workers.files.model_source import ModelFiles, resolve_model
from shardline_workers.load_times import LoadTimes
from shardline_workers.simulated_engine import SimulatedEngine, SimulatedEngineConfig, SimulatedStepTimes
from shardline_workers.simulated_tokens import TokenMode
from shardline_workers.text.simulated_text import simulated_text_model
from shardline_workers.text.text_model import TextModel

Report = Callable[[str], None]

# A prefill chunk that lets running sequences go on several times a second on a CPU. Of 16 prompts of 128 tokens that
# arrive at once, half have their first token a sixth sooner than in chunks of 512, for 2 % more CPU time at most; long
# prompts take no longer.
DEFAULT_BATCHED_TOKENS = 256
SIMULATED_BATCHED_TOKENS = 2048
SEQUENCE_SHARE, PREFILL_SHARE = 0.01, 0.001  # of a simulated step's time, for each sequence and each prefilled token


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An engine that is ready to step, and what its leader needs to know of text."""

    engine: Engine
    text: TextModel
    load_s: Mapping[str, float] = field(default_factory=dict)  # seconds of each phase of loading, in order


def load_model(spec: ReplicaSpec, report: Report) -> LoadedModel:
    """Loads what a replica is to serve; takes as long as it takes, in the calling thread.

    Raises:
        ConfigurationError: the options name no engine, or cannot be met.
        ModelFileError: the model cannot be found or read.
    """
    options = spec.deployment.options
    if options.engine == "simulated":
        loaded = _simulated(options, max_model_len=options.max_model_len or spec.deployment.max_model_len)
    elif options.engine == "shardline":
        loaded = _sharded(spec, report)
    else:
        raise ConfigurationError(f"engine is {options.engine!r}, but must be one of shardline, simulated")
    _check_context(loaded.engine.description, promised=spec.deployment.max_model_len)
    return loaded


def default_cache_folder() -> Path:
    """Where fetched models lie: `$XDG_CACHE_HOME/shardline`, by default `~/.cache/shardline`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shardline"


def _simulated(options: EngineOptions, *, max_model_len: int) -> LoadedModel:
    step_s = options.simulated_step_s
    try:
        config = SimulatedEngineConfig(
            tokens=TokenMode(options.simulated_tokens),
            replay_text=options.simulated_replay_text,
            times=SimulatedStepTimes(
                step_s=step_s, sequence_s=SEQUENCE_SHARE * step_s, prefill_token_s=PREFILL_SHARE * step_s
            ),
            max_model_len=max_model_len,
            max_num_seqs=options.max_num_seqs,
            max_num_batched_tokens=_batched_tokens(options, default=SIMULATED_BATCHED_TOKENS),
            kv_cache_tokens=options.kv_cache_tokens,
        )
    except ValueError as error:
        raise ConfigurationError(f"the simulated engine cannot be built: {error}") from error
    return LoadedModel(SimulatedEngine(config), simulated_text_model(max_model_len))


def _sharded(spec: ReplicaSpec, report: Report) -> LoadedModel:
    times = LoadTimes()
    with times.phase("files"):
        files = resolve_model(spec.deployment.model, cache_folder=default_cache_folder(), report=report)
        _check_digest(spec, files)
    with times.phase("imports"):
        from shardline_workers.engine_config import EngineConfig
        from shardline_workers.engine_loading import load_engine
        from shardline_workers.text.generation_config import GenerationConfig
        from shardline_workers.text.load_text_model import load_text_model

    options = spec.deployment.options
    with times.phase("text"):
        # Records come with every default filled in. Reading the model's own would refuse one that is out of bounds,
        # which --generation-config none promises to serve.
        text = load_text_model(
            files,
            name=spec.deployment.name,
            chat_template=options.chat_template,
            generation_config=GenerationConfig.NONE,
        )
    try:
        config = EngineConfig(
            files=files,
            device=options.device,
            dtype=options.dtype,
            kernels=options.kernels,
            max_model_len=options.max_model_len,
            max_num_seqs=options.max_num_seqs,
            max_num_batched_tokens=_batched_tokens(options, default=DEFAULT_BATCHED_TOKENS),
            kv_cache_tokens=options.kv_cache_tokens,
            kv_cache_dtype=options.kv_cache_dtype,
            block_size=options.block_size,
            enable_prefix_caching=options.enable_prefix_caching,
            replicas_on_host=spec.replicas_on_host,
            memory_sharers=spec.memory_sharers,
            memory_taken_bytes=spec.memory_taken_bytes,
        )
        engine = load_engine(config, report=report, times=times)
        return LoadedModel(engine, text, load_s=times.seconds)
    except ValueError as error:
        raise ConfigurationError(f"the engine cannot be built: {error}") from error


def _batched_tokens(options: EngineOptions, *, default: int) -> int:
    return options.max_num_batched_tokens or max(default, options.max_num_seqs)


def _check_context(engine: EngineDescription, *, promised: int) -> None:
    """The lane accepts whatever fits the deployment's context: a smaller replica could never serve some of it, and the
    first such request would hold up all behind it."""
    holds = min(engine.max_model_len, engine.kv_cache_tokens)
    if holds < promised:
        raise ConfigurationError(
            f"this replica holds {holds} tokens (its KV cache has {engine.kv_cache_tokens}), but the deployment "
            f"promises requests of {promised}: serve it with --max-model-len {holds} or less, a larger "
            "--kv-cache-tokens, or more memory"
        )


def _check_digest(spec: ReplicaSpec, files: ModelFiles) -> None:
    """A lane belongs to one weights digest: other weights would go on with other people's sentences."""
    wanted = spec.deployment.weights_digest
    if files.digest != wanted:
        raise ConfigurationError(
            f"{spec.deployment.model} has the weights digest {files.digest} on this machine, but the lane "
            f"{spec.deployment.lane} belongs to {wanted}: deploy the model anew, or bring the same files here"
        )
