"""From a model's files to a rank that can run steps, in two strides: the KV cache's size is decided by all ranks."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from shardline_workers.collectives.rank_groups import RankGroups
from shardline_workers.engine_config import EngineConfig
from shardline_workers.kernels.kernel_choice import KernelWish, choose_device, choose_kernels
from shardline_workers.kernels.kernels import Kernels
from shardline_workers.load_times import LoadTimes
from shardline_workers.memory_budget import MIB, HostResources, thread_count
from shardline_workers.models.activations import Activations
from shardline_workers.models.checkpoint import open_checkpoint
from shardline_workers.models.decoder_building import DecoderBuilder, kv_block_bytes
from shardline_workers.models.decoder_room import DecoderRoom
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.decoder_weights import DecoderWeights, load_decoder_weights
from shardline_workers.models.input_blocks import InputBlocks
from shardline_workers.models.model_share import ModelShare, share_of
from shardline_workers.models.stage_layers import stage_layers
from shardline_workers.parallel.rank_position import RankPosition
from shardline_workers.ranks.model_runner import ModelRunner
from shardline_workers.scheduling.scheduler_limits import MAX_SCORED_TOKENS, SchedulerLimits
from shardline_workers.weights.weight_loader import WeightLoader

Report = Callable[[str], None]

DEFAULT_BLOCK_SIZE = 32  # tokens, where kernels have no favourite


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRank:
    """A rank that has its weights, and no KV cache yet."""

    config: EngineConfig
    shape: DecoderShape  # of the whole model
    share: ModelShare
    kernels: Kernels
    weights: DecoderWeights
    activations: Activations
    groups: RankGroups
    block_size: int  # of the KV cache, in tokens
    num_threads: int  # of a step, at most
    asked_bytes: int  # of the model's files: what its share is made of

    @property
    def block_bytes(self) -> int:
        """That a block of the KV cache takes here."""
        return kv_block_bytes(self.shape, self.share, self.kernels, block_size=self.block_size)

    @property
    def used_bytes(self) -> int:
        """Of weights and buffers."""
        return self.weights.num_bytes() + self.activations.num_bytes()

    def build(self, limits: SchedulerLimits) -> ModelRunner:
        """Allocates the KV cache, with a block for probes besides, and what runs steps."""
        device = torch.device(self.config.device)
        room = DecoderRoom(
            max_tokens=limits.max_num_batched_tokens,
            max_sampled=limits.max_sampled_rows,
            max_len=limits.max_model_len,
            num_blocks=limits.num_blocks + 1,
            block_size=limits.block_size,
        )
        builder = DecoderBuilder(
            self.shape, self.share, self.weights, kernels=self.kernels, groups=self.groups, device=device
        )
        return ModelRunner(
            builder.build(room, self.activations),
            self.kernels,
            limits=limits,
            max_logprobs=self.config.max_logprobs,
            device=device,
        )

    def close(self) -> None:
        """Frees threads. Groups stay."""
        self.kernels.close()


def load_rank(
    config: EngineConfig,
    position: RankPosition,
    groups: RankGroups,
    *,
    host: HostResources,
    environment: Mapping[str, str],
    report: Report,
    times: LoadTimes,
) -> LoadedRank:
    """Reads a rank's share of a model.

    Args:
        config: what to load.
        position: whose share.
        groups: the rank's.
        host: where it runs.
        environment: says where compiler and cache of native kernels are.
        report: gets a line for each thing that a user should know.
        times: learns how long it takes.

    Raises:
        ModelFileError: the model cannot be read or is not supported.
        ValueError: the configuration cannot be met on this machine; the text says what would.
    """
    device = choose_device(config.device)
    num_threads = thread_count(host, replicas_on_host=config.replicas_on_host * config.ranks_on_host)
    with ExitStack() as failure, open_checkpoint(config.files) as checkpoint:
        shape = checkpoint.shape
        layers = stage_layers(checkpoint, position.plan.pp)[position.stage]
        share = share_of(shape, position, layers, blocks=InputBlocks.of(checkpoint), wish=config.expert_placement)
        # Native kernels open the packed weights, and so check them, when they are chosen.
        with times.phase("weights"):
            kernels = choose_kernels(
                _wish(config, share, shape=shape, num_threads=num_threads), environment=environment, report=report
            )
            failure.callback(kernels.close)  # their threads would outlive a rank that never was
            report(_loading_line(config, kernels, num_threads))
            loader = WeightLoader(checkpoint.source, checkpoint.names, dtype=kernels.formats.activations, device=device)
            weights = load_decoder_weights(shape, share, loader, kernels)
        activations = Activations.allocate(
            shape,
            weights,
            kernels,
            share=share,
            max_tokens=config.max_num_batched_tokens,
            max_sampled=config.max_num_seqs + MAX_SCORED_TOKENS,
            device=device,
        )
        failure.pop_all()
    report(
        f"weights: {weights.num_bytes() / MIB:.0f} MiB, of {loader.asked_bytes / MIB:.0f} MiB in the file, in "
        f"{times.seconds['weights']:.1f} s"
    )
    return LoadedRank(
        config=config,
        shape=shape,
        share=share,
        kernels=kernels,
        weights=weights,
        activations=activations,
        groups=groups,
        block_size=config.block_size or (kernels.block_sizes or (DEFAULT_BLOCK_SIZE,))[0],
        num_threads=num_threads,
        asked_bytes=loader.asked_bytes,
    )


def _wish(config: EngineConfig, share: ModelShare, *, shape: DecoderShape, num_threads: int) -> KernelWish:
    return KernelWish(
        kernels=config.kernels,
        device=torch.device(config.device),
        dtype=config.dtype,
        kv_cache_dtype=config.kv_cache_dtype,
        block_size=config.block_size,
        attention=share.attention_shape(shape.attention),
        weights_digest=config.files.digest,
        slice_name=share.name,
        num_threads=num_threads,
    )


def _loading_line(config: EngineConfig, kernels: Kernels, num_threads: int) -> str:
    formats = kernels.formats
    weights = "in its own format" if formats.weights == "file" else f"as {formats.weights}"
    told = ", ".join([kernels.name, *kernels.details.values()])
    return f"loading {config.files.source} {weights} on {config.device}: {told} kernels, {num_threads} threads"
