"""Rotation, cache and attention against float64, and the same bits however a context was computed."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.native_api import OpKind, Pairing, PanelKind
from tests.workers.kernels.native.programs import (
    NO_PANELS,
    Batch,
    Floats,
    Machine,
    address,
    aligned,
    bf16_bits,
    op,
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


SHAPES = [Heads(9, 3, 64, 64), Heads(4, 4, 16, 32), Heads(8, 1, 128, 64), Heads(6, 2, 48, 32), Heads(2, 1, 256, 64)]


class Layer:
    """A cache, its angles, and random rows of qkv for one long context."""

    def __init__(
        self, machine: Machine, heads: Heads, *, pairing: Pairing = Pairing.HALVES, num_blocks: int = 64
    ) -> None:
        self.machine = machine
        self.heads = heads
        self.pairing = pairing
        cache = api.Cache(None, num_blocks, heads.block_size, heads.num_kv_heads, heads.head_dim)
        self.room = aligned(machine.library.kv_cache_bytes(cache))
        self.room.view(np.uint16)[:] = 0x7FC0  # NaN: what another request may have left
        self.cache = api.Cache(address(self.room), num_blocks, heads.block_size, heads.num_kv_heads, heads.head_dim)
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
        attention = api.Attention(
            address(queries), self.cache, address(out), NO_PANELS, heads.num_heads, heads.head_dim**-0.5, 0, 0, None
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

    def exact(self, qkv: Floats) -> NDArray[np.float64]:
        """Attention of all tokens of one context, of rounded queries, keys and values, in float64."""
        heads, tokens = self.heads, len(qkv)
        rows = qkv.reshape(tokens, -1, heads.head_dim)
        turned = rounded_to_bf16(self.turned(rows[:, : heads.num_heads + heads.num_kv_heads]).astype(np.float32))
        queries, keys = turned[:, : heads.num_heads], turned[:, heads.num_heads :]
        values = rounded_to_bf16(rows[:, heads.num_heads + heads.num_kv_heads :])
        group = heads.num_heads // heads.num_kv_heads
        wide_keys, wide_values = (np.repeat(x, group, axis=1).astype(np.float64) for x in (keys, values))
        scores = np.einsum("qhd,khd->hqk", queries.astype(np.float64), wide_keys) * heads.head_dim**-0.5
        scores += np.triu(np.full((tokens, tokens), -np.inf), 1)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        exact: NDArray[np.float64] = np.einsum("hqk,khd->qhd", weights, wide_values).reshape(tokens, -1)
        return exact


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


@pytest.mark.parametrize("heads", SHAPES)
@pytest.mark.parametrize("tokens", [1, 2, 17, 64, 150, 330])
def test_attention_is_the_exact_one_of_rounded_inputs(machine: Machine, heads: Heads, tokens: int) -> None:
    layer = Layer(machine, heads)
    qkv = random_rows(heads, tokens)

    out = layer.run(qkv, chunks_batch(heads, [(0, tokens, blocks_of(heads, tokens))]), num_threads=2)

    # Weights are rounded to bfloat16 (2^-9 each, in both directions) before they meet the values.
    assert np.abs(out - layer.exact(qkv)).max() <= 4e-3


@pytest.mark.parametrize("pairing", list(Pairing))
def test_only_the_first_dimensions_of_a_head_turn(machine: Machine, pairing: Pairing) -> None:
    heads = Heads(4, 2, 32, 32, rotary_dim=12)
    layer = Layer(machine, heads, pairing=pairing)
    qkv = random_rows(heads, 40)

    out = layer.run(qkv, chunks_batch(heads, [(0, 40, [1, 0])]))

    assert np.abs(out - layer.exact(qkv)).max() <= 4e-3


@pytest.mark.parametrize("heads", [SHAPES[0], SHAPES[3]])
def test_a_token_has_the_same_bits_however_its_context_was_computed(machine: Machine, heads: Heads) -> None:
    tokens = 301  # more than one split
    qkv, other = random_rows(heads, tokens), random_rows(heads, 40, seed=1)
    blocks = blocks_of(heads, tokens)
    once = Layer(machine, heads).run(qkv, chunks_batch(heads, [(0, tokens, blocks)]))

    for isa in machine.library.available_isas().values():
        for num_threads in (1, 2):
            layer = Layer(machine, heads)
            beside = chunks_batch(heads, [(0, 40, [60, 61]), (0, 100, blocks)])
            parts = [layer.run(np.concatenate([other, qkv[:100]]), beside, isa=isa, num_threads=num_threads)[40:]]
            for start, end in [(100, 101), (101, 255), (255, 257), (257, 300), (300, 301)]:
                batch = chunks_batch(heads, [(start, end, blocks)])
                parts.append(layer.run(qkv[start:end], batch, isa=isa, num_threads=num_threads))

            assert np.concatenate(parts).tobytes() == once.tobytes(), (isa, num_threads)


def test_a_sequence_that_is_broken_breaks_no_other(machine: Machine) -> None:
    heads = SHAPES[0]
    qkv, broken = random_rows(heads, 33), np.full((33, heads.width), np.nan, dtype=np.float32)
    alone = Layer(machine, heads).run(qkv, chunks_batch(heads, [(0, 33, [0])]))

    for isa in machine.library.available_isas().values():
        layer = Layer(machine, heads)
        both = chunks_batch(heads, [(0, 33, [1]), (0, 33, [0])])
        out = layer.run(np.concatenate([broken, qkv]), both, isa=isa)
        reused = layer.run(qkv, chunks_batch(heads, [(0, 33, [1])]), isa=isa)

        assert np.isnan(out[:33]).all()
        assert out[33:].tobytes() == alone.tobytes() == reused.tobytes()


def test_blocks_can_be_moved_as_they_are(machine: Machine) -> None:
    heads = SHAPES[0]
    qkv = random_rows(heads, 70)
    layer = Layer(machine, heads)
    layer.run(qkv[:69], chunks_batch(heads, [(0, 69, [0, 1])]))
    block = layer.room.reshape(64, -1)

    block[[10, 20]] = block[[0, 1]]
    moved = layer.run(qkv[69:], chunks_batch(heads, [(69, 70, [10, 20])]))

    assert moved.tobytes() == layer.run(qkv[69:], chunks_batch(heads, [(69, 70, [0, 1])])).tobytes()


@pytest.mark.parametrize("kind", list(PanelKind))
def test_panels_of_attention_are_the_panels_of_its_rows(machine: Machine, kind: PanelKind) -> None:
    heads, tokens = SHAPES[0], 20
    batch = chunks_batch(heads, [(0, tokens, [0])])
    layer = Layer(machine, heads)
    rows = layer.run(random_rows(heads, tokens), batch)
    queries = bf16_bits(rounded_to_bf16(random_rows(heads, tokens)[:, : 9 * 64]))
    width = rows.shape[1]
    direct, late = (machine.panels(kind, tokens, width) for _ in range(2))
    out = np.zeros_like(rows)

    attention = api.Attention(
        address(queries), layer.cache, address(out), direct.operand(), heads.num_heads, 0.125, 0, 0, None
    )
    quantise = api.Quantise(address(out), width, late.operand())
    machine.run([op(OpKind.ATTENTION, attention), op(OpKind.QUANTISE, quantise)], batch, num_threads=2)

    assert direct.room.tobytes() == late.room.tobytes()
