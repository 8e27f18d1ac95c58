"""The Llama of `transformers`, as an oracle."""

from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from tests.parity.greedy_runs import GreedyRun


def tiny_llama(**changes: Any) -> LlamaForCausalLM:
    """A random model in float64; `changes` go into its configuration."""
    torch.manual_seed(20)
    settings: dict[str, Any] = {
        "vocab_size": 128,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
        "attn_implementation": "sdpa",
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    model = LlamaForCausalLM(LlamaConfig(**settings | changes)).to(torch.float64).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def norm_in_full(self: LlamaRMSNorm, hidden_states: Tensor) -> Tensor:
    """RMS norm in the model's dtype: transformers rounds to float32 inside, whatever the model is in."""
    variance = hidden_states.pow(2).mean(-1, keepdim=True)
    normed: Tensor = self.weight * (hidden_states * torch.rsqrt(variance + self.variance_epsilon))
    return normed


@torch.inference_mode()
def reference_logits(model: LlamaForCausalLM, run: GreedyRun) -> Tensor:
    """[num_tokens, vocab]: the logits before each of a run's tokens, all in one forward pass."""
    token_ids = torch.tensor([[*run.prompt_ids, *run.token_ids]])
    logits: Tensor = model(token_ids, logits_to_keep=len(run.token_ids) + 1).logits[0, :-1]
    return logits
