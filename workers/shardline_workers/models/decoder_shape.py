"""The numbers that make a decoder, wherever they were read from."""

from dataclasses import dataclass

from shardline_workers.kernels.operands import AttentionShape
from shardline_workers.models.rotary import RotarySpec

_MAX_LAYERS = 10_000  # keeps a hostile number from filling the memory with the names of its tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderShape:
    """Sizes and constants of one model, checked at birth."""

    family: str
    vocab_size: int  # rows of the embedding
    hidden_size: int
    intermediate_size: int
    num_layers: int
    attention: AttentionShape
    norm_epsilon: float
    rotary: RotarySpec
    is_tied: bool  # the embedding is the output matrix too
    max_len: int  # tokens of context that the model was made for

    def __post_init__(self) -> None:
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
        if self.num_layers > _MAX_LAYERS:
            raise ValueError(f"num_layers is {self.num_layers}; it must be at most {_MAX_LAYERS}")
        if not 0 <= self.norm_epsilon < 1:
            raise ValueError(f"norm_epsilon is {self.norm_epsilon}; it must be a small number of at least 0")
        if heads.num_heads % heads.num_kv_heads:
            raise ValueError(f"{heads.num_heads} heads cannot share {heads.num_kv_heads} key-value heads evenly")
        if self.rotary.rotary_dim % 2 or not 0 < self.rotary.rotary_dim <= heads.head_dim:
            raise ValueError(
                f"rotary_dim is {self.rotary.rotary_dim}; it must be even and at most the head size {heads.head_dim}"
            )

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor that the decoder computes with, by the names of weights/tensor_names."""
        shapes: dict[str, tuple[int, ...]] = {
            "embedding": (self.vocab_size, self.hidden_size),
            "final_norm": (self.hidden_size,),
        }
        if not self.is_tied:
            shapes["lm_head"] = (self.vocab_size, self.hidden_size)
        for number in range(self.num_layers):
            shapes |= {f"layers.{number}.{name}": shape for name, shape in self._layer_shapes().items()}
        return shapes

    def _layer_shapes(self) -> dict[str, tuple[int, ...]]:
        kv_size = self.attention.num_kv_heads * self.attention.head_dim
        return {
            "attention_norm": (self.hidden_size,),
            "query": (self.attention.query_size, self.hidden_size),
            "key": (kv_size, self.hidden_size),
            "value": (kv_size, self.hidden_size),
            "attention_output": (self.hidden_size, self.attention.query_size),
            "mlp_norm": (self.hidden_size,),
            "gate": (self.intermediate_size, self.hidden_size),
            "up": (self.intermediate_size, self.hidden_size),
            "down": (self.hidden_size, self.intermediate_size),
        }
