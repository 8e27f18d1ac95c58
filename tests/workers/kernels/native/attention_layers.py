"""One layer's cache and heads for tests: rotates, stores and attends, and says what is exact in float64."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.native_api import KvFormat, OpKind, Pairing
from tests.workers.kernels.native.programs import (
    NO_PANELS,
    Batch,
    Floats,
    Machine,
    address,
    aligned,
    op,
    quantised_inputs,
    rounded_to_bf16,
)

MAX_LEN = 1024


@dataclass(frozen=True, slots=True)
class Heads:
    """One layer's heads and blocks."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    block_size: int
    rotary_dim: int = 0

    @property
    def width(self) -> int:
        return (self.num_heads + 2 * self.num_kv_heads) * self.head_dim


@dataclass(frozen=True, slots=True)
class Rule:
    """What is made of scores."""

    window: int = 0
    softcap: float = 0
    has_sinks: bool = False

    def sinks(self, heads: Heads) -> Floats | None:
        return np.linspace(-2, 3, heads.num_heads, dtype=np.float32) if self.has_sinks else None


PLAIN = Rule()
RULES = [Rule(window=1), Rule(window=40), Rule(window=64), Rule(window=300), Rule(softcap=0.7), Rule(has_sinks=True)]
ALL_AT_ONCE = Rule(window=70, softcap=2.5, has_sinks=True)
SHAPES = [Heads(9, 3, 64, 64), Heads(4, 4, 16, 32), Heads(8, 1, 128, 64), Heads(6, 2, 48, 32), Heads(2, 1, 256, 64)]


class Layer:
    """A cache, its angles, and random rows of qkv for one long context."""

    def __init__(
        self,
        machine: Machine,
        heads: Heads,
        *,
        pairing: Pairing = Pairing.HALVES,
        num_blocks: int = 64,
        form: KvFormat = KvFormat.BF16,
        rule: Rule = PLAIN,
    ) -> None:
        self.machine = machine
        self.heads = heads
        self.pairing = pairing
        self.form = form
        self.rule = rule
        sizes = (num_blocks, heads.block_size, heads.num_kv_heads, heads.head_dim, form, 0)
        self.room = aligned(machine.library.kv_cache_bytes(api.Cache(None, *sizes)))
        self.room[:] = 0xFF  # NaN as bfloat16, float16 and float32: what another request may have left
        self.cache = api.Cache(address(self.room), *sizes)
        rotary_dim = heads.rotary_dim or heads.head_dim
        angles = np.arange(MAX_LEN)[:, None] / 10 ** np.linspace(0, 4, rotary_dim // 2)
        self.cosines, self.sines = (f(angles).astype(np.float32) for f in (np.cos, np.sin))

    def run(self, qkv: Floats, batch: Batch, *, isa: int | None = None, num_threads: int = 1) -> Floats:
        """Rotates, stores and attends; [tokens, heads · head_dim]."""
        heads, tokens = self.heads, len(qkv)
        queries = np.zeros((tokens, heads.num_heads, heads.head_dim), dtype=np.uint16)
        out = np.zeros((tokens, heads.num_heads * heads.head_dim), dtype=np.float32)
        qkv = np.ascontiguousarray(qkv)
        rotate = api.RotateStore(
            address(qkv),
            heads.width,
            address(queries),
            address(self.cosines),
            address(self.sines),
            MAX_LEN,
            heads.rotary_dim or heads.head_dim,
            self.pairing,
            heads.num_heads,
            self.cache,
        )
        sinks, scale = self.rule.sinks(heads), heads.head_dim**-0.5
        attention = api.Attention(
            address(queries),
            self.cache,
            address(out),
            NO_PANELS,
            heads.num_heads,
            scale,
            self.rule.window,
            self.rule.softcap,
            address(sinks),
        )
        ops = [op(OpKind.ROTATE_STORE, rotate), op(OpKind.ATTENTION, attention)]
        self.machine.run(ops, batch, isa=isa, num_threads=num_threads)
        return out

    def turned(self, x: Floats) -> NDArray[np.float64]:
        """[tokens, heads, head_dim] from position 0 on, turned in float64."""
        half = self.cosines.shape[1]
        cosines, sines = (t[: len(x), None].astype(np.float64) for t in (self.cosines, self.sines))
        halves = self.pairing is Pairing.HALVES
        first = slice(0, half) if halves else slice(0, 2 * half, 2)
        second = slice(half, 2 * half) if halves else slice(1, 2 * half, 2)
        out = x.astype(np.float64)
        out[..., first] = x[..., first] * cosines - x[..., second] * sines
        out[..., second] = x[..., second] * cosines + x[..., first] * sines
        return out

    def rounded(self, qkv: Floats) -> tuple[NDArray[np.float64], ...]:
        """Queries, keys and values, [tokens, heads, head_dim], as the cache's format rounds them."""
        heads, tokens = self.heads, len(qkv)
        rows = qkv.reshape(tokens, -1, heads.head_dim)
        turned = self.turned(rows[:, : heads.num_heads + heads.num_kv_heads]).astype(np.float32)
        queries, keys = rounded_to_bf16(turned[:, : heads.num_heads]), turned[:, heads.num_heads :]
        values = rows[:, heads.num_heads + heads.num_kv_heads :]
        if self.form is KvFormat.BF16:
            return tuple(x.astype(np.float64) for x in (queries, rounded_to_bf16(keys), rounded_to_bf16(values)))
        flat = quantised_inputs(api.Format.W8, queries.reshape(-1, heads.head_dim)).reshape(queries.shape)
        return flat, rounded_to_int8(keys, group=32, scales=np.float16), rounded_to_int8(values, group=heads.head_dim)

    def exact(self, qkv: Floats) -> NDArray[np.float64]:
        """Attention of all tokens of one context, of rounded queries, keys and values, in float64."""
        heads, tokens, rule = self.heads, len(qkv), self.rule
        queries, keys, values = self.rounded(qkv)
        group = heads.num_heads // heads.num_kv_heads
        wide_keys, wide_values = (np.repeat(x, group, axis=1) for x in (keys, values))
        scores = np.einsum("qhd,khd->hqk", queries, wide_keys) * heads.head_dim**-0.5
        if rule.softcap:
            scores = rule.softcap * np.tanh(scores / rule.softcap)
        age = np.arange(tokens)[:, None] - np.arange(tokens)
        scores[:, (age < 0) | (age >= (rule.window or tokens))] = -np.inf
        sinks = rule.sinks(heads)
        more = np.full((heads.num_heads, tokens, 1), -np.inf)
        if sinks is not None:
            more[:] = sinks[:, None, None]
        weights = np.exp(np.concatenate([scores, more], axis=-1))
        weights /= weights.sum(axis=-1, keepdims=True)
        exact: NDArray[np.float64] = np.einsum("hqk,khd->qhd", weights[..., :-1], wide_values).reshape(tokens, -1)
        return exact


def rounded_to_int8(x: Floats, *, group: int, scales: type = np.float32) -> NDArray[np.float64]:
    """Each group of dimensions to 127ths of its greatest magnitude, which the scale's type rounds first."""
    size = x.shape[-1]
    groups = np.pad(x, ((0, 0), (0, 0), (0, -size % group))).reshape(*x.shape[:2], -1, group)
    scale = (np.abs(groups).max(axis=-1, keepdims=True) / np.float32(127)).astype(scales).astype(np.float32)
    exact: NDArray[np.float64] = (np.rint(groups / scale) * scale.astype(np.float64)).reshape(*x.shape[:2], -1)
    return exact[..., :size]


def chunks_batch(heads: Heads, chunks: list[tuple[int, int, list[int]]]) -> Batch:
    """Sequences (start, end, blocks of their context) in one step."""
    batch = Batch(token_ids=[], positions=[], cache_places=[], query_starts=[0], context_lengths=[], slots=[])
    tables = np.zeros((len(chunks), 64), dtype=np.int64)
    for number, (start, end, blocks) in enumerate(chunks):
        positions = list(range(start, end))
        tables[number, : len(blocks)] = blocks
        batch.positions = [*batch.positions, *positions]
        places = [blocks[p // heads.block_size] * heads.block_size + p % heads.block_size for p in positions]
        batch.cache_places = [*batch.cache_places, *places]
        batch.query_starts = [*batch.query_starts, len(batch.positions)]
        batch.context_lengths = [*batch.context_lengths, end]
        batch.slots = [*batch.slots, number]
    batch.token_ids = [0] * len(batch.positions)
    batch.block_tables = tables.tolist()
    return batch


def random_rows(heads: Heads, tokens: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((tokens, heads.width), dtype=np.float32)


def blocks_of(heads: Heads, tokens: int, *, first: int = 0) -> list[int]:
    """Blocks for a context, in no order."""
    count = -(-tokens // heads.block_size)
    return (
        [first + (7 * number + 3) % count for number in range(count)]
        if count % 7
        else list(range(first, first + count))
    )
