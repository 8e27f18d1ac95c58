"""The families that can be served. A new one is a new entry here, not a new class."""

from collections.abc import Mapping
from types import MappingProxyType

from shardline_workers.kernels.operands import Activation, RotaryPairing, Scoring
from shardline_workers.models.decoder_style import DecoderStyle
from shardline_workers.models.family_spec import (
    ExpertsStyle,
    FamilySpec,
    GgufForm,
    HuggingFaceForm,
    Setting,
    WindowRule,
)
from shardline_workers.weights.tensor_names import (
    GGUF_DEEPSEEK,
    GGUF_GEMMA3,
    GGUF_LLAMA,
    GGUF_MIXTRAL,
    GGUF_QWEN3,
    GGUF_QWEN3_MOE,
    HUGGING_FACE_DEEPSEEK,
    HUGGING_FACE_GEMMA3,
    HUGGING_FACE_LLAMA,
    HUGGING_FACE_MIXTRAL,
    HUGGING_FACE_QWEN3,
    HUGGING_FACE_QWEN3_MOE,
)

# YaRN as everybody has it; files of models that vary it name these.
_PLAIN_YARN: Mapping[str, tuple[Setting, ...]] = {
    "rope.scaling.yarn_ext_factor": (1.0, -1.0, None),
    "rope.scaling.yarn_log_multiplier": (0.0, None),
}

LLAMA = FamilySpec(
    name="llama",
    hugging_face=HuggingFaceForm(
        architectures=("LlamaForCausalLM",),
        names=HUGGING_FACE_LLAMA,
        settings=MappingProxyType(
            {
                "hidden_act": ("silu", None),
                "attention_bias": (False, None),
                "mlp_bias": (False, None),
                "sliding_window": (None,),
                "partial_rotary_factor": (1.0, None),
            }
        ),
        defaults=MappingProxyType({"max_position_embeddings": 2048, "rms_norm_eps": 1e-6}),
    ),
    gguf=GgufForm(
        architectures=("llama",),
        names=GGUF_LLAMA,
        settings=MappingProxyType({"expert_count": (0, None), "attention.sliding_window": (0, None), **_PLAIN_YARN}),
        pairing=RotaryPairing.NEIGHBOURS,
    ),
)

QWEN3 = FamilySpec(
    name="qwen3",
    hugging_face=HuggingFaceForm(
        architectures=("Qwen3ForCausalLM",),
        names=HUGGING_FACE_QWEN3,
        settings=MappingProxyType(
            {
                "hidden_act": ("silu", None),
                "attention_bias": (False, None),
                "use_sliding_window": (False, None),
                "partial_rotary_factor": (1.0, None),
            }
        ),
        defaults=MappingProxyType({"head_dim": 128, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6}),
    ),
    gguf=GgufForm(
        architectures=("qwen3",),
        names=GGUF_QWEN3,
        settings=MappingProxyType({"expert_count": (0, None), "attention.sliding_window": (0, None), **_PLAIN_YARN}),
        pairing=RotaryPairing.HALVES,
    ),
    style=DecoderStyle(norms_heads=True),
)

GEMMA3 = FamilySpec(
    name="gemma3",
    hugging_face=HuggingFaceForm(
        architectures=("Gemma3ForCausalLM",),
        names=HUGGING_FACE_GEMMA3,
        settings=MappingProxyType(
            {
                "hidden_activation": ("gelu_pytorch_tanh", None),
                "attention_bias": (False, None),
                "use_bidirectional_attention": (False, None),
                "partial_rotary_factor": (1.0, None),
            }
        ),
        defaults=MappingProxyType(
            {
                "head_dim": 256,
                "max_position_embeddings": 131072,
                "query_pre_attn_scalar": 256,
                "rms_norm_eps": 1e-6,
                "sliding_window": 4096,
                "tie_word_embeddings": True,
            }
        ),
        norm_offset=1.0,
    ),
    gguf=GgufForm(
        architectures=("gemma3",),
        names=GGUF_GEMMA3,
        settings=MappingProxyType({"expert_count": (0, None), **_PLAIN_YARN}),
        pairing=RotaryPairing.HALVES,
        depths_scored_by_width=frozenset({62}),  # 27B
    ),
    style=DecoderStyle(activation=Activation.GELU_TANH, norms_heads=True, norms_deltas=True),
    scales_embedding=True,
    windows=WindowRule(global_every=6, theta=10000.0),
    default_theta=1e6,
)

MIXTRAL = FamilySpec(
    name="mixtral",
    hugging_face=HuggingFaceForm(
        architectures=("MixtralForCausalLM",),
        names=HUGGING_FACE_MIXTRAL,
        settings=MappingProxyType(
            {
                "hidden_act": ("silu", None),
                "attention_bias": (False, None),
                "sliding_window": (None,),
                "partial_rotary_factor": (1.0, None),
            }
        ),
        defaults=MappingProxyType({"max_position_embeddings": 131072, "rms_norm_eps": 1e-5}),
    ),
    gguf=GgufForm(
        architectures=("llama",),
        names=GGUF_MIXTRAL,
        settings=MappingProxyType(
            {"expert_shared_count": (0, None), "attention.sliding_window": (0, None), **_PLAIN_YARN}
        ),
        pairing=RotaryPairing.NEIGHBOURS,
    ),
    experts=ExpertsStyle(renormalises=True),
    default_theta=1e6,
)

QWEN3_MOE = FamilySpec(
    name="qwen3-moe",
    hugging_face=HuggingFaceForm(
        architectures=("Qwen3MoeForCausalLM",),
        names=HUGGING_FACE_QWEN3_MOE,
        settings=MappingProxyType(
            {
                "hidden_act": ("silu", None),
                "attention_bias": (False, None),
                "use_sliding_window": (False, None),
                "partial_rotary_factor": (1.0, None),
            }
        ),
        defaults=MappingProxyType(
            {
                "max_position_embeddings": 32768,
                "moe_intermediate_size": 768,
                "norm_topk_prob": False,
                "num_experts_per_tok": 8,
                "rms_norm_eps": 1e-6,
            }
        ),
    ),
    gguf=GgufForm(
        architectures=("qwen3moe",),
        names=GGUF_QWEN3_MOE,
        settings=MappingProxyType(
            {"expert_shared_count": (0, None), "attention.sliding_window": (0, None), **_PLAIN_YARN}
        ),
        pairing=RotaryPairing.HALVES,
    ),
    style=DecoderStyle(norms_heads=True),
    experts=ExpertsStyle(renormalises=True),  # as the converter's models have it; folders say so themselves
)

_DEEPSEEK: Mapping[str, tuple[Setting, ...]] = {
    "hidden_act": ("silu", None),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "partial_rotary_factor": (1.0, None),
    "moe_layer_freq": (1, None),
}

_DEEPSEEK_GGUF: Mapping[str, tuple[Setting, ...]] = {
    "attention.sliding_window": (0, None),
    "rope.scaling.yarn_ext_factor": (1.0, -1.0, None),
}
_GGUF_SOFTMAX, _GGUF_SIGMOID = 1, 2  # of expert_gating_func

DEEPSEEK_V3 = FamilySpec(
    name="deepseek-v3",
    hugging_face=HuggingFaceForm(
        architectures=("DeepseekV3ForCausalLM",),
        names=HUGGING_FACE_DEEPSEEK,
        settings=MappingProxyType(
            {**_DEEPSEEK, "scoring_func": ("sigmoid", None), "topk_method": ("noaux_tc", None)},
        ),
        defaults=MappingProxyType(
            {
                "first_k_dense_replace": 3,
                "max_position_embeddings": 4096,
                "n_group": 8,
                "n_shared_experts": 1,
                "rms_norm_eps": 1e-6,
                "routed_scaling_factor": 2.5,
                "topk_group": 4,
            }
        ),
    ),
    gguf=GgufForm(
        architectures=("deepseek2",),
        names=GGUF_DEEPSEEK,
        settings=MappingProxyType({"expert_gating_func": (_GGUF_SIGMOID,), **_DEEPSEEK_GGUF}),
        pairing=RotaryPairing.NEIGHBOURS,
    ),
    has_latent_attention=True,
    experts=ExpertsStyle(renormalises=True, scoring=Scoring.SIGMOID, has_bias=True),
)

DEEPSEEK_V2 = FamilySpec(
    name="deepseek-v2",
    hugging_face=HuggingFaceForm(
        architectures=("DeepseekV2ForCausalLM",),
        names=HUGGING_FACE_DEEPSEEK,
        # Groups are chosen by their best expert alone in the larger models of this family: not supported yet.
        settings=MappingProxyType(
            {
                **_DEEPSEEK,
                "scoring_func": ("softmax", None),
                "topk_method": ("greedy", None),
                "n_group": (1, None),
                "norm_topk_prob": (False, None),
            }
        ),
        defaults=MappingProxyType({"max_position_embeddings": 2048, "n_shared_experts": 2, "rms_norm_eps": 1e-6}),
    ),
    gguf=GgufForm(
        architectures=("deepseek2",),
        names=GGUF_DEEPSEEK,
        settings=MappingProxyType(
            {"expert_gating_func": (_GGUF_SOFTMAX, 0, None), "expert_group_count": (1, 0, None), **_DEEPSEEK_GGUF}
        ),
        pairing=RotaryPairing.NEIGHBOURS,
    ),
    has_latent_attention=True,
    experts=ExpertsStyle(renormalises=False),
)

FAMILIES = (LLAMA, QWEN3, GEMMA3, MIXTRAL, QWEN3_MOE, DEEPSEEK_V3, DEEPSEEK_V2)
