"""Sizes of multi-head latent attention (MLA; DeepSeek-V2, arXiv 2405.04434)."""

import math
from dataclasses import dataclass

from shardline_workers.kernels.operands import AttentionShape


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentShape:
    """What a token leaves behind is one latent vector, from which each head makes its key and its value, and one key
    with its position, which heads share. Checked at birth.

        query of a head    = [without position (nope_dim) | with position (rope_dim)]
        cached of a token  = [shared key with position (rope_dim) | latent (kv_rank)]
    """

    query_rank: int | None  # queries are made by way of so many numbers; None: in one step
    kv_rank: int
    nope_dim: int
    rope_dim: int  # even
    value_dim: int  # of a head
    norm_epsilon: float  # of both latent vectors
    is_split: bool = False  # the file has the heads' key matrices, turned, and value matrices in a tensor each

    def __post_init__(self) -> None:
        sizes = {
            "q_lora_rank": self.query_rank,
            "kv_lora_rank": self.kv_rank,
            "qk_nope_head_dim": self.nope_dim,
            "qk_rope_head_dim": self.rope_dim,
            "v_head_dim": self.value_dim,
        }
        for name, size in sizes.items():
            if size is not None and size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        if not 0 <= self.norm_epsilon < 1:
            raise ValueError(f"the latent norms' epsilon is {self.norm_epsilon}; it must be a small number from 0")

    @property
    def query_dim(self) -> int:
        """Of a head, as the checkpoint has it."""
        return self.nope_dim + self.rope_dim

    @property
    def expanded_dim(self) -> int:
        """What a head makes of the latent: its key without position, then its value."""
        return self.nope_dim + self.value_dim

    def attention_shape(self, num_heads: int) -> AttentionShape:
        """Its heads as kernels see them: all share one key, which is their value too."""
        return AttentionShape(
            num_heads=num_heads, num_kv_heads=1, head_dim=self.rope_dim + self.kv_rank, shares_values=True
        )

    def score_divisor(self, magnitude: float) -> float:
        """See `DecoderShape.score_divisor`.

        Args:
            magnitude: of queries, and of keys, where positions are stretched; 1: they are not.

        Raises:
            ValueError: it makes no sense.
        """
        if not 0 < magnitude < math.inf:
            raise ValueError(
                f"the magnitude of stretched queries and keys is {magnitude}; it must be a positive number"
            )
        return self.query_dim / magnitude**4

    def tensor_shapes(self, num_heads: int, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of a layer's attention, by the names of weights/tensor_names."""
        query_size = num_heads * self.query_dim
        queries: dict[str, tuple[int, ...]] = {"query": (query_size, hidden_size)}
        if self.query_rank is not None:
            queries = {
                "query_compress": (self.query_rank, hidden_size),
                "query_compress_norm": (self.query_rank,),
                "query_expand": (query_size, self.query_rank),
            }
        return queries | {
            "kv_compress": (self.kv_rank + self.rope_dim, hidden_size),
            "kv_compress_norm": (self.kv_rank,),
            **self._expanding_shapes(num_heads),
            "attention_output": (hidden_size, num_heads * self.value_dim),
        }

    def _expanding_shapes(self, num_heads: int) -> dict[str, tuple[int, ...]]:
        if not self.is_split:
            return {"kv_expand": (num_heads * self.expanded_dim, self.kv_rank)}
        return {
            "key_absorb": (num_heads, self.kv_rank, self.nope_dim),
            "value_expand": (num_heads, self.value_dim, self.kv_rank),
        }
