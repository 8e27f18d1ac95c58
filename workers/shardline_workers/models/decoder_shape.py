"""The numbers that make a decoder, wherever they were read from."""

import math
from dataclasses import dataclass, field

from shardline_workers.kernels.operands import AttentionShape
from shardline_workers.models.decoder_style import DecoderStyle
from shardline_workers.models.experts_shape import ExpertsShape, gated_shapes
from shardline_workers.models.latent_shape import LatentShape
from shardline_workers.models.rotary import RotarySpec
from shardline_workers.models.windowed_layers import WindowedLayers

MAX_LAYERS = 10_000  # keeps a hostile number from filling the memory with the names of its tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderShape:
    """Sizes and constants of one model, checked at birth."""

    family: str
    vocab_size: int  # rows of the embedding
    hidden_size: int
    intermediate_size: int  # width of a dense MLP
    num_layers: int
    num_draft_layers: int = 0  # behind the others in the file: they guess further tokens, and are not read
    attention: AttentionShape
    latent: LatentShape | None = None  # of attention that caches latent vectors; `attention` is as it tells
    norm_epsilon: float
    rotary: RotarySpec
    is_tied: bool  # the embedding is the output matrix too
    max_len: int  # tokens of context that the model was made for
    style: DecoderStyle = field(default_factory=DecoderStyle)
    windowed: WindowedLayers | None = None
    experts: ExpertsShape | None = None
    norm_offset: float = 0.0  # the checkpoint has its norms less this
    embedding_scale: float = 1.0
    score_divisor: float | None = None  # scores are divided by its root; None: the head's size
    score_softcap: float | None = None
    logit_softcap: float | None = None

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_factors()
        heads = self.attention
        if heads.num_heads % heads.num_kv_heads:
            raise ValueError(f"{heads.num_heads} heads cannot share {heads.num_kv_heads} key-value heads evenly")
        for rotary in self.rotaries:
            if rotary.rotary_dim % 2 or not 0 < rotary.rotary_dim <= heads.head_dim:
                raise ValueError(
                    f"rotary_dim is {rotary.rotary_dim}; it must be even and at most the head size {heads.head_dim}"
                )

    def _check_sizes(self) -> None:
        heads = self.attention
        sizes = {
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_layers": self.num_layers,
            "num_heads": heads.num_heads,
            "num_kv_heads": heads.num_kv_heads,
            "head_dim": heads.head_dim,
            "max_len": self.max_len,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        if self.num_layers > MAX_LAYERS:
            raise ValueError(f"num_layers is {self.num_layers}; it must be at most {MAX_LAYERS}")

    def _check_factors(self) -> None:
        if not 0 <= self.norm_epsilon < 1:
            raise ValueError(f"norm_epsilon is {self.norm_epsilon}; it must be a small number of at least 0")
        factors = {
            "the divisor of attention scores": self.score_divisor,
            "the softcap of attention scores": self.score_softcap,
            "the softcap of logits": self.logit_softcap,
        }
        for name, factor in factors.items():
            if factor is not None and not 0 < factor < math.inf:
                raise ValueError(f"{name} is {factor}; it must be a positive number")

    @property
    def rotaries(self) -> tuple[RotarySpec, ...]:
        """All ways in which heads turn."""
        return (self.rotary,) if self.windowed is None else (self.rotary, self.windowed.rotary)

    def rotary_of(self, layer: int) -> RotarySpec:
        """How the heads of a layer turn."""
        return self.windowed.rotary if self.windowed is not None and layer in self.windowed.layers else self.rotary

    def window_of(self, layer: int) -> int | None:
        """How many tokens a token sees in a layer, itself included; None: all."""
        return self.windowed.window if self.windowed is not None and layer in self.windowed.layers else None

    def experts_of(self, layer: int) -> ExpertsShape | None:
        """The experts of a layer; None: it has a dense MLP."""
        return self.experts if self.experts is not None and layer in self.experts.layers else None

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor that the decoder computes with, by the names of weights/tensor_names."""
        shapes: dict[str, tuple[int, ...]] = {
            "embedding": (self.vocab_size, self.hidden_size),
            "final_norm": (self.hidden_size,),
        }
        if not self.is_tied:
            shapes["lm_head"] = (self.vocab_size, self.hidden_size)
        for number in range(self.num_layers):
            shapes |= {f"layers.{number}.{name}": shape for name, shape in self._layer_shapes(number).items()}
        return shapes

    def _layer_shapes(self, number: int) -> dict[str, tuple[int, ...]]:
        norms: dict[str, tuple[int, ...]] = {}
        if self.style.norms_heads:
            norms |= dict.fromkeys(("query_norm", "key_norm"), (self.attention.head_dim,))
        if self.style.norms_deltas:
            norms |= dict.fromkeys(("attention_delta_norm", "mlp_delta_norm"), (self.hidden_size,))
        return norms | {
            **self._attention_shapes(),
            "attention_norm": (self.hidden_size,),
            "mlp_norm": (self.hidden_size,),
            **self._mlp_shapes(number),
        }

    def _mlp_shapes(self, number: int) -> dict[str, tuple[int, ...]]:
        if (experts := self.experts_of(number)) is not None:
            return experts.tensor_shapes(self.hidden_size)
        return gated_shapes("", hidden_size=self.hidden_size, width=self.intermediate_size)

    def _attention_shapes(self) -> dict[str, tuple[int, ...]]:
        heads = self.attention
        if self.latent is not None:
            return self.latent.tensor_shapes(heads.num_heads, self.hidden_size)
        kv_size = heads.num_kv_heads * heads.head_dim
        return {
            "query": (heads.query_size, self.hidden_size),
            "key": (kv_size, self.hidden_size),
            "value": (kv_size, self.hidden_size),
            "attention_output": (self.hidden_size, heads.query_size),
        }
