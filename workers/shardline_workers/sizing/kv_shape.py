"""What a model's keys and values take: with grouped heads, with one latent vector (MLA), and with windows."""

import math
from dataclasses import dataclass

_BFLOAT16_BYTES = 2
# As kernels/native/api.h draws the int8 cache.
_DIMS_PER_KEY_SCALE = 32
_KEY_SCALE_BYTES = 2
_VALUE_SCALE_BYTES = 4

KV_DTYPES = ("bfloat16", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class KvShape:
    """Keys and values of all layers.

    Attention with a latent cache (MLA) is one head without values: what it attends to is made from the key.
    """

    num_heads: int  # key-value heads
    key_dim: int
    value_dim: int  # 0: none are kept
    windows: tuple[int | None, ...]  # of each layer, how many tokens it sees; None: all

    @property
    def num_layers(self) -> int:
        """All, with and without a window."""
        return len(self.windows)

    def head_bytes(self, dtype: str = "bfloat16") -> int:
        """Of one token and head in one layer, as bfloat16 or int8."""
        if dtype == "int8":
            scales = math.ceil(self.key_dim / _DIMS_PER_KEY_SCALE) * _KEY_SCALE_BYTES
            return self.key_dim + scales + (self.value_dim + _VALUE_SCALE_BYTES if self.value_dim else 0)
        return (self.key_dim + self.value_dim) * _BFLOAT16_BYTES

    def held_bytes(self, num_tokens: int, *, dtype: str = "bfloat16") -> int:
        """Of so many tokens, each kept in every layer, as our engine does."""
        return num_tokens * self.num_layers * self.num_heads * self.head_bytes(dtype)

    def seen_tokens(self, context: int, layers: range) -> int:
        """Sum over layers of the tokens that the last one of `context` tokens attends to."""
        return sum(min(context, window or context) for window in self.windows[layers.start : layers.stop])

    def seen_bytes(self, context: int, *, dtype: str = "bfloat16") -> int:
        """What a sequence of `context` tokens needs, and reads in a step: layers with a window that window only."""
        return self.seen_tokens(context, range(self.num_layers)) * self.num_heads * self.head_bytes(dtype)
