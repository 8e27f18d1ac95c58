import math

import pytest
import torch
from torch.nn import functional

from shardline_workers.kernels.operands import ScoreRule
from shardline_workers.kernels.reference_attention import attend


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(6, 2), (4, 4), (3, 1)])
@pytest.mark.parametrize(("num_tokens", "context"), [(1, 1), (1, 9), (5, 5), (4, 11)])
def test_attention_is_torchs_causal_attention_of_the_last_tokens(
    num_heads: int, num_kv_heads: int, num_tokens: int, context: int
) -> None:
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(num_tokens, num_heads, 8, generator=generator, dtype=torch.float64)
    keys, values = torch.randn(2, num_kv_heads, context, 8, generator=generator, dtype=torch.float64)

    ours = attend(query, keys, values, scores=ScoreRule(scale=0.3))

    mask = torch.ones(num_tokens, context, dtype=torch.bool).tril(context - num_tokens)
    expected = functional.scaled_dot_product_attention(
        query.transpose(0, 1), keys, values, attn_mask=mask, scale=0.3, enable_gqa=True
    )
    torch.testing.assert_close(ours, expected.transpose(0, 1).flatten(1), rtol=0, atol=1e-12)


def test_half_precision_is_normalised_in_float32() -> None:
    keys = torch.zeros(1, 3000, 8, dtype=torch.bfloat16)
    values = torch.ones(1, 3000, 8, dtype=torch.bfloat16)

    attended = attend(torch.ones(1, 1, 8, dtype=torch.bfloat16), keys, values, scores=ScoreRule(scale=1.0))

    assert attended.dtype is torch.bfloat16
    torch.testing.assert_close(attended, torch.ones_like(attended), rtol=0.01, atol=0)


def test_a_window_a_cap_and_a_sink_change_scores_as_their_formulas_say() -> None:
    generator = torch.Generator().manual_seed(2)
    query = torch.randn(3, 1, 8, generator=generator, dtype=torch.float64)
    keys, values = torch.randn(2, 1, 5, 8, generator=generator, dtype=torch.float64)
    rule = ScoreRule(scale=0.5, window=2, softcap=1.5, sinks=torch.tensor([0.25]))

    ours = attend(query, keys, values, scores=rule)

    for token in range(3):
        seen = slice(token + 1, token + 3)  # the token's own position is token + 2
        capped = 1.5 * torch.tanh(keys[0, seen] @ query[token, 0] * 0.5 / 1.5)
        weights = capped.exp() / (capped.exp().sum() + math.exp(0.25))
        torch.testing.assert_close(ours[token], weights @ values[0, seen], rtol=0, atol=1e-12)


@pytest.mark.parametrize("wrong", [{"window": 0}, {"softcap": 0.0}, {"softcap": math.inf}])
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="it must be"):
        ScoreRule(scale=1.0, **wrong)  # type: ignore[arg-type]
