import pytest
import torch
from torch.nn import functional

from shardline_workers.kernels.reference_attention import attend, gather


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(6, 2), (4, 4), (3, 1)])
@pytest.mark.parametrize(("num_tokens", "context"), [(1, 1), (1, 9), (5, 5), (4, 11)])
def test_attention_is_torchs_causal_attention_of_the_last_tokens(
    num_heads: int, num_kv_heads: int, num_tokens: int, context: int
) -> None:
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(num_tokens, num_heads, 8, generator=generator, dtype=torch.float64)
    keys, values = torch.randn(2, num_kv_heads, context, 8, generator=generator, dtype=torch.float64)

    ours = attend(query, keys, values, scale=0.3)

    mask = torch.ones(num_tokens, context, dtype=torch.bool).tril(context - num_tokens)
    expected = functional.scaled_dot_product_attention(
        query.transpose(0, 1), keys, values, attn_mask=mask, scale=0.3, enable_gqa=True
    )
    torch.testing.assert_close(ours, expected.transpose(0, 1).flatten(1), rtol=0, atol=1e-12)


def test_half_precision_is_normalised_in_float32() -> None:
    keys = torch.zeros(1, 3000, 8, dtype=torch.bfloat16)
    values = torch.ones(1, 3000, 8, dtype=torch.bfloat16)

    attended = attend(torch.ones(1, 1, 8, dtype=torch.bfloat16), keys, values, scale=1.0)

    assert attended.dtype is torch.bfloat16
    torch.testing.assert_close(attended, torch.ones_like(attended), rtol=0.01, atol=0)


def test_blocks_are_gathered_in_the_order_of_the_table() -> None:
    blocks = torch.arange(2 * 4 * 3).view(2, 4, 3, 1)

    gathered = gather(blocks, torch.tensor([3, 0]), 5)

    assert gathered[..., 0].tolist() == [[9, 10, 11, 0, 1], [21, 22, 23, 12, 13]]
