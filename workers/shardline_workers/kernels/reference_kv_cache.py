"""Keys and values of one layer in plain torch: in a float dtype, or as int8 with scales.

Layout: [num_kv_heads, num_blocks, block_size, head_dim], keys and then values. So a gather of blocks by `index_select`
gives each head's keys in one piece. As int8, scales follow: one for each key and 32 dimensions (float16), and one for
each value (float32), as native code has them, so that both round alike where they are given the same numbers. What is
read is brought to the dtype of the queries, and nothing else of attention is rounded.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from shardline_workers.kernels.operands import AttentionShape, KvCache

_KEY_GROUP = 32  # dimensions with one scale
_INT8_MAX = 127


def allocate(
    shape: AttentionShape, *, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
) -> KvCache:
    """Room for one layer's keys and values. Not zeroed: memory that no token has touched yet costs nothing on hosts."""
    places = (shape.num_kv_heads, num_blocks, block_size)

    def empty(columns: int, kind: torch.dtype) -> Tensor:
        return torch.empty((*places, columns), dtype=kind, device=device)

    is_rounded = dtype is torch.int8
    keys, values = [empty(shape.head_dim, dtype)], []
    if is_rounded:
        keys.append(empty(-(-shape.head_dim // _KEY_GROUP), torch.float16))
    if not shape.shares_values:
        values = [empty(shape.head_dim, dtype)] + ([empty(1, torch.float32)] if is_rounded else [])
    return KvCache(num_blocks, block_size, (*keys, *values))


def block_bytes(shape: AttentionShape, *, block_size: int, dtype: torch.dtype) -> int:
    """Memory that one block takes in one layer."""
    cache = allocate(shape, num_blocks=1, block_size=block_size, dtype=dtype, device=torch.device("meta"))
    return sum(tensor.nbytes for tensor in cache.tensors)


def store(cache: KvCache, places: Tensor, keys: Tensor, values: Tensor) -> None:
    """Puts keys and values, [num_tokens, num_kv_heads, head_dim], at places, block id · block size + offset.

    Where values are their keys, there are none, [num_tokens, 0, head_dim].
    """
    new = [keys, values]
    if cache.tensors[0].dtype is torch.int8:
        rounded_keys = _quantised(keys, group=_KEY_GROUP, scale_dtype=torch.float16)
        rounded_values = _quantised(values, group=values.shape[-1], scale_dtype=torch.float32)
        new = [*rounded_keys, *rounded_values]
    for stored, rows in zip(cache.tensors, new, strict=False):
        stored.flatten(1, 2).index_copy_(1, places, rows.transpose(0, 1).to(stored.dtype))


def gather(cache: KvCache, block_ids: Tensor, context: int, *, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Keys and values of one sequence, each [num_kv_heads, context, head_dim], from its blocks in their order."""
    stored = [blocks.index_select(1, block_ids).flatten(1, 2)[:, :context] for blocks in cache.tensors]
    num_of_keys = 2 if stored[0].dtype is torch.int8 else 1
    keys = _read(stored[:num_of_keys], dtype)
    return keys, _read(stored[num_of_keys:], dtype) if len(stored) > num_of_keys else keys


def _read(stored: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Numbers, and where there are scales, times those: each of so many neighbouring dimensions."""
    numbers, *scales = stored
    if not scales:
        return numbers.to(dtype)
    group = numbers.shape[-1] if scales[0].shape[-1] == 1 else _KEY_GROUP
    return numbers.to(dtype) * scales[0].to(dtype).repeat_interleave(group, dim=-1)[..., : numbers.shape[-1]]


def _quantised(x: Tensor, *, group: int, scale_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Int8 as [..., dim] and scales as [..., dim / group], up to half a scale away from x.

    Where a number is none, so is the scale: all products with it are NaN.
    """
    size = x.shape[-1]
    groups = functional.pad(x.float(), (0, -size % group)).view(*x.shape[:-1], -(-size // group), group)
    scales = (groups.abs().amax(dim=-1) / _INT8_MAX).to(scale_dtype)
    steps = groups / scales.float().unsqueeze(-1)
    rounded = steps.nan_to_num(0.0).round().clamp(-_INT8_MAX, _INT8_MAX).to(torch.int8)
    return rounded.flatten(-2)[..., :size], scales
