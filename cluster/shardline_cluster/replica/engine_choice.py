"""From what a deployment asks for to an engine and the text side of its model. Imports torch only where it must."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import EngineOptions
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.replica.model_location import find_model
from shardline_workers.engine import Engine, EngineDescription
from shardline_workers.load_times import LoadTimes
from shardline_workers.simulated_engine import SimulatedEngine, SimulatedEngineConfig, SimulatedStepTimes
from shardline_workers.simulated_tokens import TokenMode
from shardline_workers.text.simulated_text import simulated_text_model
from shardline_workers.text.text_model import TextModel

if TYPE_CHECKING:
    from shardline_workers.gang.rank_pool import RankPool

Report = Callable[[str], None]
OpenPool = Callable[[Report], "RankPool"]

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


def load_model(spec: ReplicaSpec, report: Report, *, open_pool: OpenPool | None = None) -> LoadedModel:
    """Loads what a replica is to serve; takes as long as it takes, in the calling thread.

    Args:
        spec: of the replica.
        report: gets a line for each thing that a user should know.
        open_pool: listens for rank processes that somebody else starts; None: a leader starts its ranks itself.

    Raises:
        ConfigurationError: the options name no engine, or cannot be met.
        ModelFileError: the model cannot be found or read.
        GangError: ranks did not come, or were lost.
    """
    options = spec.deployment.options
    if options.engine == "simulated":
        loaded = _simulated(options, max_model_len=options.max_model_len or spec.deployment.max_model_len)
    elif options.engine == "shardline":
        loaded = _sharded(spec, report, open_pool)
    else:
        raise ConfigurationError(f"engine is {options.engine!r}, but must be one of shardline, simulated")
    _check_context(loaded.engine.description, promised=spec.deployment.max_model_len)
    return loaded


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


def _sharded(spec: ReplicaSpec, report: Report, open_pool: OpenPool | None) -> LoadedModel:
    times = LoadTimes()
    with times.phase("files"):
        files = find_model(spec, report=report)
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
            plan=spec.gang.plan,
            replicas_on_host=spec.replicas_on_host,
            memory_sharers=spec.memory_sharers,
            memory_taken_bytes=spec.memory_taken_bytes,
        )
        comes_alone = not spec.gang.bundles or spec.gang.plan.num_ranks == 1
        pool = None if open_pool is None or comes_alone else open_pool(report)
        engine = load_engine(config, report=report, times=times, pool=pool)
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
