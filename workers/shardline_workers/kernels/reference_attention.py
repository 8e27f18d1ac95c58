"""Paged attention in plain torch, sequence by sequence.

Layout of a layer's keys, and of its values: [num_kv_heads, num_blocks, block_size, head_dim]. So a gather of blocks by
`index_select` gives each head's keys in one piece, and query heads that share a key head fold into the rows of one
matrix product (5 times faster than a grouped call with one query, as measured on CPUs).
"""

import torch
from torch import Tensor


def attend(query: Tensor, keys: Tensor, values: Tensor, *, scale: float) -> Tensor:
    """Causal attention of one sequence's last tokens.

    Args:
        query: [num_tokens, num_heads, head_dim], the last tokens of the context.
        keys: [num_kv_heads, context, head_dim].
        values: [num_kv_heads, context, head_dim].
        scale: factor of the scores.

    Returns:
        [num_tokens, num_heads * head_dim]
    """
    num_tokens, num_heads, head_dim = query.shape
    num_kv_heads, context, _ = keys.shape
    group = num_heads // num_kv_heads
    folded = query.view(num_tokens, num_kv_heads, group, head_dim).permute(1, 2, 0, 3)
    folded = folded.reshape(num_kv_heads, group * num_tokens, head_dim)
    scores = torch.bmm(folded, keys.transpose(1, 2)).mul_(scale)
    if num_tokens > 1:
        scores.view(num_kv_heads, group, num_tokens, context).add_(_causal_mask(num_tokens, context, like=scores))
    weights = _softmax(scores)
    attended = torch.bmm(weights, values).view(num_kv_heads, group, num_tokens, head_dim)
    return attended.permute(2, 0, 1, 3).reshape(num_tokens, num_heads * head_dim)


def gather(blocks: Tensor, block_ids: Tensor, context: int) -> Tensor:
    """Keys or values of one sequence, [num_kv_heads, context, head_dim], from [num_kv_heads, num_blocks, size, dim]."""
    return blocks.index_select(1, block_ids).flatten(1, 2)[:, :context]


def _causal_mask(num_tokens: int, context: int, *, like: Tensor) -> Tensor:
    mask = torch.full((num_tokens, context), -torch.inf, dtype=like.dtype, device=like.device)
    return mask.triu_(context - num_tokens + 1)


def _softmax(scores: Tensor) -> Tensor:
    if scores.dtype in (torch.float16, torch.bfloat16):
        return scores.softmax(dim=-1, dtype=torch.float32).to(scores.dtype)
    return scores.softmax(dim=-1)
