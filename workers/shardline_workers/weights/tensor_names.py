"""What a checkpoint calls its tensors, and what we call them. Ours:

embedding   final_norm   lm_head   rotary_factors
layers.N.attention_norm   layers.N.query   layers.N.key   layers.N.value   layers.N.attention_output
layers.N.mlp_norm         layers.N.gate    layers.N.up    layers.N.down
layers.N.query_norm       layers.N.key_norm              where heads are normed
layers.N.query_compress   …_norm   layers.N.query_expand   where queries are made in two steps
layers.N.kv_compress      …_norm   layers.N.kv_expand      where latent vectors are cached
layers.N.key_absorb   layers.N.value_expand                in the place of kv_expand: [heads, outputs, inputs]
layers.N.attention_delta_norm   layers.N.mlp_delta_norm  where what a half layer gives is normed
layers.N.router   layers.N.router_bias   layers.N.experts.E.gate   …up   …down   in a mixture of experts
layers.N.shared_gate   layers.N.shared_up   layers.N.shared_down   beside one, for every token

In tables, # stands for the number of an expert.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

_EXPERT_NUMBER = re.compile(r"(?<=[.\[])(0|[1-9]\d*)(?=[.\]])")


@dataclass(frozen=True, slots=True, kw_only=True)
class NameTable:
    """Names of one kind of checkpoint. Layer names are a prefix, the layer's number, a dot and a rest."""

    singles: Mapping[str, str]
    layer_prefix: str
    layer_rests: Mapping[str, str]
    ignored_rests: frozenset[str] = frozenset()  # rests that hold nothing that a model needs
    # Rests of tensors that hold all experts of a layer → what an expert's rows are. See `UnstackedSource`.
    stacks: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def ours(self, name: str) -> str | None:
        """Our name of a checkpoint's tensor; None where it has none."""
        if name in self.singles:
            return self.singles[name]
        number, rest = self._split(name)
        if rest in self.layer_rests:
            return f"layers.{number}.{self.layer_rests[rest]}"
        if (expert := _EXPERT_NUMBER.search(rest)) is None:
            return None
        ours = self.layer_rests.get(_EXPERT_NUMBER.sub("#", rest, count=1))
        return None if ours is None else f"layers.{number}.{ours.replace('#', expert[0])}"

    def theirs(self, name: str) -> str:
        """The checkpoint's name of our tensor. KeyError for one that is none of ours."""
        if match := re.fullmatch(r"layers\.(\d+)\.(?:(\w+)|experts\.(\d+)\.(\w+))", name):
            rests = {ours: theirs for theirs, ours in self.layer_rests.items()}
            rest = rests[match[2] or f"experts.#.{match[4]}"]
            return f"{self.layer_prefix}{match[1]}.{rest.replace('#', match[3] or '')}"
        return {ours: theirs for theirs, ours in self.singles.items()}[name]

    def stack_parts(self, name: str) -> tuple[str, ...] | None:
        """What the rows of an expert are in a tensor that holds all of a layer; None for any other tensor."""
        return self.stacks.get(self._split(name)[1])

    def layer_of(self, name: str) -> int | None:
        """The number of the layer that a checkpoint's tensor belongs to; None: to none."""
        number, _ = self._split(name)
        return int(number) if number else None

    def is_ignored(self, name: str) -> bool:
        """Whether a tensor may be there without being read."""
        return self._split(name)[1] in self.ignored_rests

    def _split(self, name: str) -> tuple[str, str]:
        match = re.fullmatch(re.escape(self.layer_prefix) + r"(0|[1-9]\d*)\.(.+)", name)
        return (match[1], match[2]) if match else ("", "")


def _with_rests(table: NameTable, rests: Mapping[str, str]) -> NameTable:
    """The same table where layers have more tensors, or others of the same names."""
    return replace(table, layer_rests=MappingProxyType({**table.layer_rests, **rests}))


def _with_stacks(table: NameTable, stacks: Mapping[str, tuple[str, ...]]) -> NameTable:
    """The same table where layers have tensors that hold all their experts."""
    rests = {f"{rest}[#].{part}": f"experts.#.{part}" for rest, parts in stacks.items() for part in parts}
    # Before the others: what is missing is told by the name that comes last.
    rests_of_all = MappingProxyType({**rests, **table.layer_rests})
    return replace(table, layer_rests=rests_of_all, stacks=MappingProxyType({**table.stacks, **stacks}))


HUGGING_FACE_LLAMA = NameTable(
    singles=MappingProxyType(
        {"model.embed_tokens.weight": "embedding", "model.norm.weight": "final_norm", "lm_head.weight": "lm_head"}
    ),
    layer_prefix="model.layers.",
    layer_rests=MappingProxyType(
        {
            "input_layernorm.weight": "attention_norm",
            "self_attn.q_proj.weight": "query",
            "self_attn.k_proj.weight": "key",
            "self_attn.v_proj.weight": "value",
            "self_attn.o_proj.weight": "attention_output",
            "post_attention_layernorm.weight": "mlp_norm",
            "mlp.gate_proj.weight": "gate",
            "mlp.up_proj.weight": "up",
            "mlp.down_proj.weight": "down",
        }
    ),
    # Old checkpoints store the angles, which follow from the configuration.
    ignored_rests=frozenset({"self_attn.rotary_emb.inv_freq"}),
)

GGUF_LLAMA = NameTable(
    singles=MappingProxyType(
        {
            "token_embd.weight": "embedding",
            "output_norm.weight": "final_norm",
            "output.weight": "lm_head",
            "rope_freqs.weight": "rotary_factors",
        }
    ),
    layer_prefix="blk.",
    layer_rests=MappingProxyType(
        {
            "attn_norm.weight": "attention_norm",
            "attn_q.weight": "query",
            "attn_k.weight": "key",
            "attn_v.weight": "value",
            "attn_output.weight": "attention_output",
            "ffn_norm.weight": "mlp_norm",
            "ffn_gate.weight": "gate",
            "ffn_up.weight": "up",
            "ffn_down.weight": "down",
        }
    ),
)

HUGGING_FACE_QWEN3 = _with_rests(
    HUGGING_FACE_LLAMA, {"self_attn.q_norm.weight": "query_norm", "self_attn.k_norm.weight": "key_norm"}
)

GGUF_QWEN3 = _with_rests(GGUF_LLAMA, {"attn_q_norm.weight": "query_norm", "attn_k_norm.weight": "key_norm"})

HUGGING_FACE_GEMMA3 = _with_rests(
    HUGGING_FACE_QWEN3,
    {
        "post_attention_layernorm.weight": "attention_delta_norm",
        "pre_feedforward_layernorm.weight": "mlp_norm",
        "post_feedforward_layernorm.weight": "mlp_delta_norm",
    },
)

GGUF_GEMMA3 = _with_rests(
    GGUF_QWEN3, {"post_attention_norm.weight": "attention_delta_norm", "post_ffw_norm.weight": "mlp_delta_norm"}
)

_HUGGING_FACE_STACKS: Mapping[str, tuple[str, ...]] = {
    "mlp.experts.gate_up_proj": ("gate", "up"),
    "mlp.experts.down_proj": ("down",),
}

HUGGING_FACE_MIXTRAL = _with_stacks(
    _with_rests(
        HUGGING_FACE_LLAMA,
        {
            "mlp.gate.weight": "router",
            "block_sparse_moe.gate.weight": "router",
            "block_sparse_moe.experts.#.w1.weight": "experts.#.gate",
            "block_sparse_moe.experts.#.w3.weight": "experts.#.up",
            "block_sparse_moe.experts.#.w2.weight": "experts.#.down",
        },
    ),
    _HUGGING_FACE_STACKS,
)

HUGGING_FACE_QWEN3_MOE = _with_stacks(
    _with_rests(
        HUGGING_FACE_QWEN3,
        {
            "mlp.gate.weight": "router",
            "mlp.experts.#.gate_proj.weight": "experts.#.gate",
            "mlp.experts.#.up_proj.weight": "experts.#.up",
            "mlp.experts.#.down_proj.weight": "experts.#.down",
        },
    ),
    _HUGGING_FACE_STACKS,
)

_GGUF_STACKS: Mapping[str, tuple[str, ...]] = {
    "ffn_gate_exps.weight": ("gate",),
    "ffn_up_exps.weight": ("up",),
    "ffn_down_exps.weight": ("down",),
}

GGUF_MIXTRAL = _with_stacks(_with_rests(GGUF_LLAMA, {"ffn_gate_inp.weight": "router"}), _GGUF_STACKS)

GGUF_QWEN3_MOE = _with_stacks(_with_rests(GGUF_QWEN3, {"ffn_gate_inp.weight": "router"}), _GGUF_STACKS)

HUGGING_FACE_DEEPSEEK = _with_stacks(
    _with_rests(
        HUGGING_FACE_LLAMA,
        {
            "self_attn.q_a_proj.weight": "query_compress",
            "self_attn.q_a_layernorm.weight": "query_compress_norm",
            "self_attn.q_b_proj.weight": "query_expand",
            "self_attn.kv_a_proj_with_mqa.weight": "kv_compress",
            "self_attn.kv_a_layernorm.weight": "kv_compress_norm",
            "self_attn.kv_b_proj.weight": "kv_expand",
            "mlp.gate.weight": "router",
            "mlp.gate.e_score_correction_bias": "router_bias",
            "mlp.experts.#.gate_proj.weight": "experts.#.gate",
            "mlp.experts.#.up_proj.weight": "experts.#.up",
            "mlp.experts.#.down_proj.weight": "experts.#.down",
            "mlp.shared_experts.gate_proj.weight": "shared_gate",
            "mlp.shared_experts.up_proj.weight": "shared_up",
            "mlp.shared_experts.down_proj.weight": "shared_down",
        },
    ),
    _HUGGING_FACE_STACKS,
)

GGUF_DEEPSEEK = _with_stacks(
    _with_rests(
        GGUF_LLAMA,
        {
            "attn_q_a.weight": "query_compress",
            "attn_q_a_norm.weight": "query_compress_norm",
            "attn_q_b.weight": "query_expand",
            "attn_kv_a_mqa.weight": "kv_compress",
            "attn_kv_a_norm.weight": "kv_compress_norm",
            "attn_kv_b.weight": "kv_expand",
            "attn_k_b.weight": "key_absorb",
            "attn_v_b.weight": "value_expand",
            "ffn_gate_inp.weight": "router",
            "exp_probs_b.bias": "router_bias",
            "ffn_gate_shexp.weight": "shared_gate",
            "ffn_up_shexp.weight": "shared_up",
            "ffn_down_shexp.weight": "shared_down",
        },
    ),
    _GGUF_STACKS,
)
