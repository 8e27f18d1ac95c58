"""From what was asked of an engine to the bounds that its scheduler keeps."""

import torch

from shardline_workers.engine_config import EngineConfig
from shardline_workers.memory_budget import CARD_SHARE, HOST_SHARE, MIB, HostResources, KvDemand, kv_blocks
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits

# Keys and values of 64k tokens: eight long conversations. On CPUs a larger cache would rather serve the page cache.
_MAX_KV_TOKENS_CPU = 64 * 1024


def decide_limits(
    config: EngineConfig,
    shape: DecoderShape,
    *,
    block_size: int,
    block_bytes: int,
    host: HostResources,
    used_bytes: int,
) -> SchedulerLimits:
    """The bounds that a scheduler gets: what was asked for, filled up with what model and machine allow.

    Args:
        config: what was asked for.
        shape: of the model.
        block_size: of the KV cache, in tokens.
        block_bytes: that a block of it takes, all layers together.
        host: cores and memory of all replicas here together.
        used_bytes: memory of weights and buffers.

    Raises:
        ValueError: it cannot be met; the text says what could.
    """
    asked = config.max_model_len
    if asked is not None and not 1 <= asked <= shape.max_len:
        raise ValueError(f"max_model_len is {asked}; this model was made for 1 to {shape.max_len} tokens")
    demand = _demand(config, shape, block_size=block_size, block_bytes=block_bytes)
    num_blocks = _num_blocks(config, demand, host=host, used_bytes=used_bytes)
    kv_cache_tokens = num_blocks * block_size
    if asked is not None and asked > kv_cache_tokens:
        raise ValueError(
            f"max_model_len is {asked}, but the KV cache holds {kv_cache_tokens} tokens; lower it, raise"
            " kv_cache_tokens, or give more memory"
        )
    return SchedulerLimits(
        max_model_len=asked or min(shape.max_len, kv_cache_tokens),
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        num_blocks=num_blocks,
        block_size=block_size,
        enable_prefix_caching=config.enable_prefix_caching,
        max_in_flight=config.plan.pp,
    )


def _demand(config: EngineConfig, shape: DecoderShape, *, block_size: int, block_bytes: int) -> KvDemand:
    max_tokens = config.max_num_seqs * (config.max_model_len or shape.max_len)
    if _on_cpu(config):
        max_tokens = min(max_tokens, _MAX_KV_TOKENS_CPU)
    return KvDemand(
        block_bytes=block_bytes,
        max_tokens=max(block_size, max_tokens),
        block_size=block_size,
    )


def _num_blocks(config: EngineConfig, demand: KvDemand, *, host: HostResources, used_bytes: int) -> int:
    if config.kv_cache_tokens is not None:
        if config.kv_cache_tokens < demand.block_size:
            raise ValueError(
                f"kv_cache_tokens is {config.kv_cache_tokens}; it must be at least a block of {demand.block_size}"
                " tokens"
            )
        return config.kv_cache_tokens // demand.block_size
    memory_bytes = host.memory_bytes if _on_cpu(config) else torch.cuda.mem_get_info(config.device)[1]
    return kv_blocks(
        demand,
        memory_bytes=memory_bytes,
        usable_share=HOST_SHARE if _on_cpu(config) else CARD_SHARE,
        used_bytes=used_bytes,
        sharers=config.memory_sharers or config.replicas_on_host,
        taken_bytes=config.memory_taken_bytes,
    )


def _on_cpu(config: EngineConfig) -> bool:
    return torch.device(config.device).type == "cpu"


def kv_cache_line(limits: SchedulerLimits, *, block_bytes: int, dtype: torch.dtype) -> str:
    """What a user should know of the KV cache, in a line; bytes are those of a block in all layers."""
    size_mib = limits.num_blocks * block_bytes / MIB
    name = str(dtype).removeprefix("torch.")
    concurrency = limits.kv_cache_tokens / limits.max_model_len
    return (
        f"KV cache: {limits.kv_cache_tokens} tokens ({size_mib:.0f} MiB of {name}), enough for {concurrency:.1f}"
        f" requests of {limits.max_model_len} tokens at once; at most {limits.max_num_seqs} sequences run together"
    )
