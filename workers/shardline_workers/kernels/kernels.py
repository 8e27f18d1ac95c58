"""The operations that a decoder is made of: a small interface with one implementation for each kind of device.

All operations write into buffers that they are given and read their sizes from the step's header. So the sequence of
calls of a step is always the same, and can be recorded once and replayed: by native code, by a CUDA graph, or, as the
reference does, simply by making the calls.

`Rows` tells which of the header's counts is the number of rows of an operation's buffers.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Protocol

import torch
from torch import Tensor

from shardline_workers.kernels.sampling_buffers import SamplingBuffers
from shardline_workers.kernels.step_buffers import StepBuffers, StepCount


class Rows(IntEnum):
    """What the rows of a buffer stand for."""

    TOKENS = StepCount.TOKENS
    SAMPLED = StepCount.SAMPLED


class RotaryPairing(Enum):
    """Which two dimensions of a head turn together."""

    HALVES = "halves"  # i and i + rotary_dim / 2: Hugging Face's layout
    NEIGHBOURS = "neighbours"  # 2i and 2i + 1: the layout of GGUF's llama architecture


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """A weight matrix in the layout of the kernels that packed it; nobody else looks inside."""

    num_outputs: int
    num_inputs: int
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class KvCache:
    """Keys and values of one layer, in the layout of the kernels that made it; nobody else looks inside."""

    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class RotaryTable:
    """Angles by position. The first rotary_dim dimensions of a head turn, the others stay."""

    cosines: Tensor  # [max_model_len, rotary_dim / 2], dtype of the model
    sines: Tensor  # [max_model_len, rotary_dim / 2], dtype of the model
    pairing: RotaryPairing


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """Heads of one layer. A row of `qkv` holds all query heads, then all key heads, then all value heads."""

    num_heads: int
    num_kv_heads: int  # divides num_heads: neighbouring query heads share a key head
    head_dim: int

    @property
    def qkv_size(self) -> int:
        """Length of a row of `qkv`."""
        return (self.num_heads + 2 * self.num_kv_heads) * self.head_dim

    @property
    def query_size(self) -> int:
        """Length of a row of all query heads."""
        return self.num_heads * self.head_dim


class Kernels(Protocol):
    """One implementation of every operation. It holds no state of a step."""

    @property
    def name(self) -> str:
        """Enters the numerics id: kernels that round differently have different names."""
        ...

    def pack_linear(self, weight: Tensor) -> PackedLinear:
        """Takes a weight [num_outputs, num_inputs] into the layout that `linear` reads. At loading only."""
        ...

    def allocate_kv_cache(
        self, shape: AttentionShape, *, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> KvCache:
        """Room for one layer's keys and values. At loading only."""
        ...

    def embedding(self, out: Tensor, table: Tensor, step: StepBuffers) -> None:
        """out[token] = table[token_ids[token]]; out [max_tokens, hidden], table [vocab, hidden]."""
        ...

    def rms_norm(self, out: Tensor, x: Tensor, weight: Tensor, *, epsilon: float, step: StepBuffers) -> None:
        """out = x / rms(x) · weight, row by row; all [max_tokens, hidden]."""
        ...

    def add_rms_norm(
        self, out: Tensor, residual: Tensor, x: Tensor, weight: Tensor, *, epsilon: float, step: StepBuffers
    ) -> None:
        """residual += x, then out = residual / rms(residual) · weight; all [max_tokens, hidden]."""
        ...

    def linear(self, out: Tensor, x: Tensor, weight: PackedLinear, *, rows: Rows, step: StepBuffers) -> None:
        """out [rows, num_outputs] = x [rows, num_inputs] · weight transposed."""
        ...

    def rotate_and_store(
        self, qkv: Tensor, cache: KvCache, rotary: RotaryTable, *, shape: AttentionShape, step: StepBuffers
    ) -> None:
        """Turns queries and keys of qkv [max_tokens, qkv_size] in place; writes keys and values to `cache_places`."""
        ...

    def attention(
        self, out: Tensor, qkv: Tensor, cache: KvCache, *, shape: AttentionShape, scale: float, step: StepBuffers
    ) -> None:
        """Causal attention of each token to its sequence's cache, itself included; out [max_tokens, query_size].

        A ragged batch: one token of a sequence in decode, many of one in prefill. Keys and values always come from the
        cache, never from `qkv`.
        """
        ...

    def gated_activation(self, out: Tensor, gate_up: Tensor, *, step: StepBuffers) -> None:
        """out [max_tokens, size] = silu(gate) · up, for gate_up [max_tokens, 2 · size], gate before up."""
        ...

    def gather_sampled(self, out: Tensor, x: Tensor, *, step: StepBuffers) -> None:
        """out [max_seqs, hidden], row r = x[sampled_rows[r]]."""
        ...

    def choose_greedy(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """Writes `chosen_ids`, the likeliest token of each sampled row, ties to the lowest id, and `usable`."""
        ...

    def choose_drawn(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """Overwrites `chosen_ids` of `drawn_rows`: temperature, top-k, top-p, min-p in this order, then one draw."""
        ...

    def logprobs(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """Writes log-probabilities of `logprob_rows`, from the logits as they are: chosen token and likeliest ones."""
        ...
