"""Tiny random models of `transformers` in float64, as oracles of each family."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.models.deepseek_v2 import modeling_deepseek_v2
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2RMSNorm, DeepseekV2TopkRouter
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3RMSNorm, DeepseekV3TopkRouter
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mixtral.modeling_mixtral import MixtralRMSNorm, MixtralTopKRouter
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeRMSNorm, Qwen3MoeTopKRouter

from tests.parity.greedy_runs import GreedyRun

SETTINGS: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "attn_implementation": "sdpa",
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
_LATENT: dict[str, Any] = {
    "q_lora_rank": 20,
    "kv_lora_rank": 24,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 8,
    "v_head_dim": 14,
    "num_key_value_heads": 6,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 36,
}
_EXACT_EXPERTS = {"experts_implementation": "eager"}  # the faster ones take no float64


def tiny_llama(**changes: Any) -> PreTrainedModel:
    """A random Llama; `changes` go into its configuration."""
    return _random_model(lambda: LlamaForCausalLM(LlamaConfig(**SETTINGS | changes)))


def tiny_qwen3(**changes: Any) -> PreTrainedModel:
    """A random dense Qwen 3."""
    return _random_model(lambda: Qwen3ForCausalLM(Qwen3Config(**SETTINGS | changes)))


def tiny_mixtral(**changes: Any) -> PreTrainedModel:
    """A random Mixtral of 5 experts, of which a token takes 2."""
    ours = {"num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 40, **_EXACT_EXPERTS}
    return _random_model(lambda: MixtralForCausalLM(MixtralConfig(**SETTINGS | ours | changes)))


def tiny_qwen3_moe(**changes: Any) -> PreTrainedModel:
    """A random Qwen 3 of 7 narrow experts, of which a token takes 3."""
    ours = {
        "num_experts": 7,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 36,
        "norm_topk_prob": True,
        **_EXACT_EXPERTS,
    }
    return _random_model(lambda: Qwen3MoeForCausalLM(Qwen3MoeConfig(**SETTINGS | ours | changes)))


def tiny_gemma3(**changes: Any) -> PreTrainedModel:
    """A random Gemma 3: every third layer sees everything, the others 20 tokens."""
    ours = {
        "num_hidden_layers": 4,
        "sliding_window": 20,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        "query_pre_attn_scalar": 12,
        "eos_token_id": 1,
    }
    model = _random_model(lambda: Gemma3ForCausalLM(Gemma3TextConfig(**SETTINGS | ours | changes)))
    # Or each token would be most like itself: the embedding is scaled up, and is the output matrix too.
    model.get_input_embeddings().weight.data *= 0.1
    return model


def tiny_deepseek_v3(**changes: Any) -> PreTrainedModel:
    """A random DeepSeek-V3: a dense layer, then experts in groups, with biases that decide."""
    ours = {"n_routed_experts": 12, "n_group": 4, "topk_group": 2, "num_experts_per_tok": 3, "n_shared_experts": 1}
    settings = SETTINGS | _LATENT | _EXACT_EXPERTS | ours | changes
    model = _random_model(lambda: DeepseekV3ForCausalLM(DeepseekV3Config(**settings)))
    for module in model.modules():
        if isinstance(module, DeepseekV3TopkRouter):
            bias = module.e_score_correction_bias
            bias.copy_(0.3 * torch.randn(bias.shape))
    return model


def tiny_deepseek_v2(**changes: Any) -> PreTrainedModel:
    """A random DeepSeek-V2 with the routing of its small models."""
    ours = {"n_routed_experts": 7, "num_experts_per_tok": 3, "n_shared_experts": 2, "routed_scaling_factor": 1.5}
    settings = SETTINGS | _LATENT | _EXACT_EXPERTS | ours | changes
    return _random_model(lambda: DeepseekV2ForCausalLM(DeepseekV2Config(**settings)))


def _random_model(make: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    torch.manual_seed(20)
    model = make().to(torch.float64).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data += 0.2 * torch.randn_like(parameter)
        if name.endswith("gate.weight"):  # of a router, which some families begin with zeros
            parameter.data = 0.3 * torch.randn_like(parameter)
    return model


@contextmanager
def exact_oracles() -> Iterator[None]:
    """Norms and routers in the model's dtype: transformers rounds to float32 inside, whatever the model is in."""
    with (
        patch.object(LlamaRMSNorm, "forward", _norm),
        patch.object(Qwen3RMSNorm, "forward", _norm),
        patch.object(DeepseekV2RMSNorm, "forward", _norm),
        patch.object(DeepseekV3RMSNorm, "forward", _norm),
        patch.object(torch, "polar", _turned),  # of DeepSeek-V2's angles
        patch.object(modeling_deepseek_v2, "apply_rotary_emb", _in_float64(modeling_deepseek_v2.apply_rotary_emb)),
        patch.object(DeepseekV2TopkRouter, "forward", _in_float64(DeepseekV2TopkRouter.forward)),
        patch.object(DeepseekV3TopkRouter, "forward", _in_float64(DeepseekV3TopkRouter.forward)),
        patch.object(Gemma3RMSNorm, "forward", _gemma_norm),
        patch.object(MixtralRMSNorm, "forward", _norm),
        patch.object(Qwen3MoeRMSNorm, "forward", _norm),
        patch.object(MixtralTopKRouter, "forward", _mixtral_routes),
        patch.object(Qwen3MoeTopKRouter, "forward", _qwen3_routes),
    ):
        yield


@contextmanager
def capped_scores(cap: float) -> Iterator[None]:
    """Gemma 3's attention with the softcap that its configuration may name; transformers reads the key and leaves it.
    Its own formula, that of Gemma 2, is called, in float64 throughout."""

    def attention(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **kwargs: Any) -> Any:
        with patch.object(torch, "float32", torch.float64):
            return modeling_gemma3.eager_attention_forward(
                module, query, key, value, mask, scaling=kwargs["scaling"], softcap=cap
            )

    with patch.object(modeling_gemma3.ALL_ATTENTION_FUNCTIONS, "get_interface", lambda *_: attention):
        yield


def _norm(self: Any, hidden_states: Tensor) -> Tensor:
    variance = hidden_states.pow(2).mean(-1, keepdim=True)
    normed: Tensor = self.weight * (hidden_states * torch.rsqrt(variance + self.variance_epsilon))
    return normed


def _turned(radii: Tensor, angles: Tensor) -> Tensor:
    """Complex numbers whose parts are those of the other models, where torch.polar rounds in its own way."""
    return radii * torch.complex(angles.cos().double(), angles.sin().double())


def _in_float64(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The same, where it names float32."""

    def exact(*args: Any, **kwargs: Any) -> Any:
        with patch.object(torch, "float32", torch.float64), patch.object(Tensor, "float", Tensor.double):
            return forward(*args, **kwargs)

    return exact


def _mixtral_routes(self: MixtralTopKRouter, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _routes(self, hidden_states, renormalises=True)


def _qwen3_routes(self: Qwen3MoeTopKRouter, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _routes(self, hidden_states, renormalises=self.norm_topk_prob)


def _routes(router: Any, hidden_states: Tensor, *, renormalises: bool) -> tuple[Tensor, Tensor, Tensor]:
    logits = torch.nn.functional.linear(hidden_states.reshape(-1, router.hidden_dim), router.weight)
    weights, expert_ids = torch.topk(logits.softmax(-1), router.top_k, dim=-1)
    if renormalises:
        weights = weights / weights.sum(-1, keepdim=True)
    return logits, weights, expert_ids


def _gemma_norm(self: Gemma3RMSNorm, x: Tensor) -> Tensor:
    normed: Tensor = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (1.0 + self.weight)
    return normed


@torch.inference_mode()
def reference_logits(model: PreTrainedModel, run: GreedyRun) -> Tensor:
    """[num_tokens, vocab]: the logits before each of a run's tokens, all in one forward pass."""
    token_ids = torch.tensor([[*run.prompt_ids, *run.token_ids]])
    logits: Tensor = model(token_ids, logits_to_keep=len(run.token_ids) + 1).logits[0, :-1]
    return logits
