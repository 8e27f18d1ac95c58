"""What operations work on: weights, caches and tables, in layouts that only the kernels know that made them."""

import math
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Protocol, Self

import torch
from torch import Tensor

from shardline_workers.files.stored_tensor import StoredTensor
from shardline_workers.kernels.step_buffers import StepCount


class Rows(IntEnum):
    """What the rows of a buffer stand for: which of the header's counts is their number."""

    TOKENS = StepCount.TOKENS
    SAMPLED = StepCount.SAMPLED


class RotaryPairing(Enum):
    """Which two dimensions of a head turn together."""

    HALVES = "halves"  # i and i + rotary_dim / 2: Hugging Face's layout
    NEIGHBOURS = "neighbours"  # 2i and 2i + 1: the layout of GGUF's llama architecture


class Activation(Enum):
    """What the gate of an MLP is turned by."""

    SILU = "silu"
    GELU_TANH = "gelu_tanh"  # GELU by its approximation with tanh


class Scoring(Enum):
    """What makes scores of a router's logits."""

    SOFTMAX = "softmax"  # over all experts
    SIGMOID = "sigmoid"  # of each expert alone


class MatrixSource(Protocol):
    """A weight matrix [num_outputs, num_inputs] that still lies in its checkpoint."""

    @property
    def stored(self) -> StoredTensor:
        """As it lies there."""
        ...

    def dequantised(self) -> Tensor:
        """As numbers, in the dtype and on the device of the one who loads it.

        Raises:
            ModelFileError: it is stored in a type that cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """A weight matrix in the layout of the kernels that packed it; nobody else looks inside."""

    num_outputs: int
    num_inputs: int
    tensors: tuple[Tensor, ...]
    layout: tuple[int, ...] = ()  # what lies in the tensors, for the kernels alone


@dataclass(frozen=True, slots=True)
class LinearInput:
    """Rows that linear layers read, as wide as `num_inputs`, in the layout of the kernels that made it."""

    num_inputs: int
    rows: Tensor


@dataclass(frozen=True, slots=True)
class KvCache:
    """Keys and values of one layer, in the layout of the kernels that made it; nobody else looks inside."""

    num_blocks: int
    block_size: int  # tokens
    tensors: tuple[Tensor, ...]
    layout: tuple[int, ...] = ()  # what lies in the tensors, for the kernels alone


@dataclass(frozen=True, slots=True)
class RotaryTable:
    """Angles by position. The first rotary_dim dimensions of a head turn, the others stay."""

    cosines: Tensor  # [max_model_len, rotary_dim / 2], dtype of the activations
    sines: Tensor  # [max_model_len, rotary_dim / 2], dtype of the activations
    pairing: RotaryPairing


def check_window(window: int) -> None:
    """Passes a number of tokens, itself included, that a token can see at most.

    Raises:
        ValueError: it is none.
    """
    if not 1 <= window < 2**31:
        raise ValueError(f"the attention window is {window}; it must be 1 to {2**31 - 1} tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRule:
    """What attention makes of a query and the keys before it: score = query · key · scale, then softcap, then softmax.

    Raises:
        ValueError: a number that makes no sense.
    """

    scale: float
    window: int | None = None  # tokens that a token sees, itself included; None: all
    softcap: float | None = None  # scores become softcap · tanh(score / softcap)
    sinks: Tensor | None = None  # [num_heads] float32, a score of each head that takes weight and gives nothing

    def __post_init__(self) -> None:
        if self.window is not None:
            check_window(self.window)
        if self.softcap is not None and not (math.isfinite(self.softcap) and self.softcap > 0):
            raise ValueError(f"a softcap of scores is {self.softcap}; it must be a number above 0, or None")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadNorms:
    """Each head of queries and keys becomes head / rms(head) · weight before it turns."""

    queries: Tensor  # [head_dim], dtype of the activations
    keys: Tensor  # [head_dim], dtype of the activations
    epsilon: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """Heads of one layer. A row of `qkv` holds all query heads, then all key heads, then all value heads."""

    num_heads: int
    num_kv_heads: int  # divides num_heads: neighbouring query heads share a key head
    head_dim: int
    # A value is its key, with anything in the dimensions that turn: rows of `qkv` hold no values.
    shares_values: bool = False

    @property
    def qkv_size(self) -> int:
        """Length of a row of `qkv`."""
        return (self.num_heads + (1 if self.shares_values else 2) * self.num_kv_heads) * self.head_dim

    @property
    def query_size(self) -> int:
        """Length of a row of all query heads."""
        return self.num_heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRule:
    """How a token's experts are chosen from its router's logits, and what each one weighs.

    A choice is a score plus the router's bias, where there is one. With groups, which are neighbouring experts, only
    those of the groups can be chosen whose two greatest choices have the greatest sums. Weights are scores, not
    choices.

    Raises:
        ValueError: numbers that make no sense.
    """

    num_active: int  # experts that a token takes
    scoring: Scoring = Scoring.SOFTMAX
    renormalises: bool = True  # a token's weights are divided by their sum
    scale: float = 1.0  # of weights, in the end
    num_groups: int = 1
    num_active_groups: int = 1

    def __post_init__(self) -> None:
        if self.num_active < 1:
            raise ValueError(f"a token takes {self.num_active} experts; it must be at least 1")
        if not 1 <= self.num_active_groups <= self.num_groups:
            raise ValueError(
                f"{self.num_active_groups} of {self.num_groups} groups of experts can be chosen from; it must be 1 to "
                "all of them"
            )
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"the weights of experts are scaled by {self.scale}; it must be a positive number")

    def check(self, num_experts: int) -> None:
        """Passes a number of experts that it can choose from.

        Raises:
            ValueError: they are too few, or do not make its groups.
        """
        if num_experts % self.num_groups:
            raise ValueError(f"{num_experts} experts do not make {self.num_groups} groups of one size")
        group_size = num_experts // self.num_groups
        if self.num_groups > 1 and group_size < 2:
            raise ValueError(f"{num_experts} experts in {self.num_groups} groups; a group must have at least 2")
        if self.num_active > group_size * self.num_active_groups:
            raise ValueError(
                f"a token takes {self.num_active} experts; it can choose from {group_size * self.num_active_groups}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """Which experts rows take. A row's experts stand in the order of their choices, the greatest first."""

    expert_ids: Tensor  # [max_rows, num_active] int32, of a row all different, or of nobody
    weights: Tensor  # [max_rows, num_active], dtype of the activations
    num_rows: Tensor  # [1] int32: how many rows count

    @classmethod
    def allocate(cls, *, max_rows: int, num_active: int, dtype: torch.dtype, device: torch.device) -> Self:
        """Of no rows, with room for so many."""
        return cls(
            expert_ids=torch.zeros((max_rows, num_active), dtype=torch.int32, device=device),
            weights=torch.zeros((max_rows, num_active), dtype=dtype, device=device),
            num_rows=torch.zeros(1, dtype=torch.int32, device=device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedExpert:
    """A rank's part of one expert."""

    expert_id: int  # as routes name it
    gate_up: PackedLinear  # hidden → gate, up; made by `pack_gated`
    down: PackedLinear  # width → hidden
