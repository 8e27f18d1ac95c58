"""From a model's files to an engine that is ready for steps."""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from hashlib import sha256

import torch

from shardline_workers.engine import EngineDescription
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_limits import decide_limits, kv_cache_line
from shardline_workers.kernels.kernel_choice import KernelWish, choose_device, choose_kernels
from shardline_workers.kernels.kernels import Kernels
from shardline_workers.load_times import LoadTimes
from shardline_workers.memory_budget import MIB, HostResources, read_host_resources, thread_count
from shardline_workers.models.checkpoint import open_checkpoint
from shardline_workers.models.decoder import Activations, Decoder, rotary_tables
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.decoder_weights import DecoderWeights, load_decoder_weights
from shardline_workers.ranks.model_runner import ModelRunner
from shardline_workers.ranks.thread_governor import ThreadGovernor
from shardline_workers.scheduling.scheduler import Scheduler
from shardline_workers.scheduling.scheduler_limits import MAX_SCORED_TOKENS, SchedulerLimits
from shardline_workers.sharded_engine import ShardedEngine
from shardline_workers.weights.rank_slice import RankSlice
from shardline_workers.weights.weight_loader import WeightLoader

Report = Callable[[str], None]

DEFAULT_BLOCK_SIZE = 32  # tokens, where kernels have no favourite


def load_engine(
    config: EngineConfig,
    *,
    report: Report,
    environment: Mapping[str, str] = os.environ,
    times: LoadTimes | None = None,
) -> ShardedEngine:
    """Loads a model and makes it ready for steps.

    Args:
        config: what to load.
        report: gets a line for each thing that a user should know.
        environment: says where compiler and cache of native kernels are.
        times: learns how long each phase takes.

    Raises:
        ModelFileError: the model cannot be read or is not supported.
        ValueError: the configuration cannot be met on this machine; the text says what would.
    """
    times = times or LoadTimes()
    rank_slice = RankSlice()  # the one rank there is
    device = choose_device(config.device)
    host = read_host_resources()
    num_threads = thread_count(host, replicas_on_host=config.replicas_on_host)
    with ExitStack() as failure:
        with open_checkpoint(config.files) as checkpoint:
            shape = checkpoint.shape
            # Native kernels open the packed weights, and so check them, when they are chosen.
            with times.phase("weights"):
                kernels = choose_kernels(
                    _wish(config, shape, rank_slice=rank_slice, num_threads=num_threads),
                    environment=environment,
                    report=report,
                )
                failure.callback(kernels.close)  # their threads would outlive an engine that never was
                report(_loading_line(config, kernels, num_threads))
                loader = WeightLoader(
                    checkpoint.source,
                    checkpoint.names,
                    dtype=kernels.formats.activations,
                    device=device,
                    rank_slice=rank_slice,
                )
                weights = load_decoder_weights(shape, loader, kernels)
        report(f"weights: {weights.num_bytes() / MIB:.0f} MiB in {times.seconds['weights']:.1f} s")
        with times.phase("KV cache"):
            engine = _build(config, shape, weights, kernels=kernels, host=host, num_threads=num_threads, report=report)
        report("warming up")
        with times.phase("warm-up"):
            engine.warm_up()
        failure.pop_all()
    return engine


def _wish(config: EngineConfig, shape: DecoderShape, *, rank_slice: RankSlice, num_threads: int) -> KernelWish:
    return KernelWish(
        kernels=config.kernels,
        device=torch.device(config.device),
        dtype=config.dtype,
        kv_cache_dtype=config.kv_cache_dtype,
        block_size=config.block_size,
        attention=shape.attention,
        weights_digest=config.files.digest,
        slice_name=rank_slice.name,
        num_threads=num_threads,
    )


def _loading_line(config: EngineConfig, kernels: Kernels, num_threads: int) -> str:
    formats = kernels.formats
    weights = "in its own format" if formats.weights == "file" else f"as {formats.weights}"
    told = ", ".join([kernels.name, *kernels.details.values()])
    return f"loading {config.files.source} {weights} on {config.device}: {told} kernels, {num_threads} threads"


def _build(
    config: EngineConfig,
    shape: DecoderShape,
    weights: DecoderWeights,
    *,
    kernels: Kernels,
    host: HostResources,
    num_threads: int,
    report: Report,
) -> ShardedEngine:
    device, formats = torch.device(config.device), kernels.formats
    activations = Activations.allocate(
        shape,
        weights,
        kernels,
        max_tokens=config.max_num_batched_tokens,
        max_sampled=config.max_num_seqs + MAX_SCORED_TOKENS,
        device=device,
    )
    block_size = config.block_size or (kernels.block_sizes or (DEFAULT_BLOCK_SIZE,))[0]
    block_bytes = shape.num_layers * kernels.kv_block_bytes(shape.attention, block_size=block_size)
    limits = decide_limits(
        config,
        shape,
        block_size=block_size,
        block_bytes=block_bytes,
        host=host,
        used_bytes=weights.num_bytes() + activations.num_bytes(),
    )
    report(kv_cache_line(limits, block_bytes=block_bytes, dtype=formats.kv_cache))
    rotary = rotary_tables(shape, weights, limits.max_model_len, dtype=formats.activations, device=device)
    decoder = Decoder(shape, weights, rotary=rotary, activations=activations)
    return ShardedEngine(
        Scheduler(limits),
        ModelRunner(decoder, kernels, limits=limits, max_logprobs=config.max_logprobs, device=device),
        kernels,
        description=_describe(
            config,
            shape,
            limits,
            kernels=kernels,
            num_threads=num_threads,
            memory={"weights_bytes": weights.num_bytes(), "kv_cache_bytes": limits.num_blocks * block_bytes},
        ),
        threads=ThreadGovernor(num_threads),
        max_logprobs=config.max_logprobs,
    )


def _describe(
    config: EngineConfig,
    shape: DecoderShape,
    limits: SchedulerLimits,
    *,
    kernels: Kernels,
    num_threads: int,
    memory: Mapping[str, int],
) -> EngineDescription:
    numerics = {
        "weights": config.files.digest,
        **kernels.numerics,
        "block_size": str(limits.block_size),  # attention may sum block by block
        "shape": "tp1-pp1-ep1",
    }
    told = "; ".join(f"{name}={value}" for name, value in numerics.items())
    return EngineDescription(
        numerics_id=sha256(told.encode()).hexdigest()[:16],
        max_model_len=limits.max_model_len,
        max_num_seqs=limits.max_num_seqs,
        kv_cache_tokens=limits.kv_cache_tokens,
        vocab_size=shape.vocab_size,
        details={
            **numerics,
            **kernels.details,
            **{name: str(num_bytes) for name, num_bytes in memory.items()},
            "model": config.files.source,
            "family": shape.family,
            "threads": str(num_threads),
            "prefix_caching": "on" if limits.enable_prefix_caching else "off",
            "batch_invariant": "yes" if kernels.is_batch_invariant else "no",
        },
    )
