"""The numbers that decide a model's size, for dense models and mixtures of experts, grouped and latent attention."""

from dataclasses import dataclass

from shardline_workers.sizing.kv_shape import KvShape


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedAttention:
    """Query heads that share key-value heads (GQA; with as many of both, plain multi-head attention)."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    norms_heads: bool = False  # of queries and keys


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention of DeepSeek-V2 and V3 (arXiv 2405.04434): one latent vector a token is cached."""

    num_heads: int
    query_rank: int | None  # None: queries are made in one step
    kv_rank: int
    nope_dim: int  # of a head, without position
    rope_dim: int  # with it; keys share it
    value_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A mixture of experts in place of one MLP."""

    num_experts: int
    num_active: int  # experts that a token goes to
    width: int  # intermediate size of one
    shared_width: int = 0  # of the expert that every token goes to; 0: there is none
    has_bias: bool = False  # of the scores (DeepSeek-V3's balancing)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """One decoder layer: either an MLP of `mlp_width`, or experts."""

    mlp_width: int = 0
    experts: Experts | None = None
    window: int | None = None  # tokens that attention sees; None: all


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A decoder of text. Checked at birth."""

    family: str  # `model_type` of its configuration
    vocab_size: int
    hidden_size: int
    attention: GroupedAttention | LatentAttention
    layers: tuple[LayerShape, ...]
    is_tied: bool  # the embedding is the head, too
    context_tokens: int  # that the model was made for
    norms_per_layer: int = 2  # of hidden_size

    def __post_init__(self) -> None:
        sizes = {"vocab_size": self.vocab_size, "hidden_size": self.hidden_size, "num_layers": len(self.layers)}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        heads = self.attention
        if isinstance(heads, GroupedAttention) and (heads.num_kv_heads < 1 or heads.num_heads % heads.num_kv_heads):
            raise ValueError(f"{heads.num_heads} heads cannot share {heads.num_kv_heads} key-value heads evenly")
        for layer in self.layers:
            if layer.experts and not 1 <= layer.experts.num_active <= layer.experts.num_experts:
                raise ValueError(f"{layer.experts.num_active} of {layer.experts.num_experts} experts cannot be active")

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return len(self.layers)

    @property
    def kv(self) -> KvShape:
        """Its keys and values."""
        heads = self.attention
        windows = tuple(layer.window for layer in self.layers)
        if isinstance(heads, LatentAttention):
            return KvShape(num_heads=1, key_dim=heads.kv_rank + heads.rope_dim, value_dim=0, windows=windows)
        return KvShape(num_heads=heads.num_kv_heads, key_dim=heads.head_dim, value_dim=heads.head_dim, windows=windows)

    @property
    def num_experts(self) -> int:
        """Of the layers that have any; 0: a dense model."""
        return max((layer.experts.num_experts for layer in self.layers if layer.experts), default=0)
