"""Norms of heads before they turn: the bits of a norm operation followed by a rotation."""

import numpy as np
import pytest

from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.native_api import OpKind, Pairing
from tests.workers.kernels.native.programs import NO_PANELS, Array, Batch, Floats, Machine, address, aligned, op

NUM_TOKENS, NUM_HEADS, NUM_KV_HEADS, BLOCK_SIZE = 5, 4, 2, 32
EPSILON = 1e-3


def random(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def normed(machine: Machine, heads: Floats, weight: Floats) -> Floats:
    """Heads [rows, heads, head_dim] by the norm operation."""
    rows = np.ascontiguousarray(heads.reshape(-1, len(weight)))
    found = np.empty_like(rows)
    size = len(weight)
    norm = api.Norm(address(rows), None, address(weight), address(found), NO_PANELS, size, EPSILON, None, size)
    machine.run([op(OpKind.NORM, norm)], Batch(num_tokens=len(rows)))
    return found.reshape(heads.shape)


def rotated(
    machine: Machine, qkv: Floats, weights: tuple[Floats, Floats] | None, *, pairing: Pairing, isa: int | None = None
) -> tuple[bytes, bytes]:
    """Queries and cache after a rotation of qkv [rows, heads, head_dim]."""
    rows, heads, head_dim = qkv.shape
    angles = random(NUM_TOKENS, head_dim // 2, seed=9)
    cosines, sines = np.cos(angles), np.sin(angles)
    cache = api.Cache(num_blocks=1, block_size=BLOCK_SIZE, num_kv_heads=NUM_KV_HEADS, head_dim=head_dim)
    blocks = aligned(machine.library.kv_cache_bytes(cache))
    cache.blocks = address(blocks)
    queries: Array = np.zeros((rows, NUM_HEADS, head_dim), np.uint16)
    rotate = api.RotateStore(
        qkv=address(qkv),
        qkv_stride=heads * head_dim,
        queries=address(queries),
        cosines=address(cosines),
        sines=address(sines),
        max_len=NUM_TOKENS,
        rotary_dim=head_dim,
        pairing=pairing,
        num_heads=NUM_HEADS,
        cache=cache,
        query_norm=None if weights is None else address(weights[0]),
        key_norm=None if weights is None else address(weights[1]),
        epsilon=EPSILON,
    )
    places = list(range(NUM_TOKENS))
    batch = Batch(num_tokens=NUM_TOKENS, positions=places, cache_places=places)
    machine.run([op(OpKind.ROTATE_STORE, rotate)], batch, isa=isa, num_threads=2)
    return queries.tobytes(), blocks.tobytes()


@pytest.mark.parametrize("head_dim", [16, 80, 256])
@pytest.mark.parametrize("pairing", list(Pairing))
def test_heads_are_normed_before_they_turn(machine: Machine, head_dim: int, pairing: Pairing) -> None:
    qkv = random(NUM_TOKENS, NUM_HEADS + 2 * NUM_KV_HEADS, head_dim) * np.float32(5)
    weights = random(head_dim, seed=1), random(head_dim, seed=2)
    before = qkv.copy()
    before[:, :NUM_HEADS] = normed(machine, qkv[:, :NUM_HEADS], weights[0])
    before[:, NUM_HEADS:-NUM_KV_HEADS] = normed(machine, qkv[:, NUM_HEADS:-NUM_KV_HEADS], weights[1])

    told = {
        rotated(machine, qkv, weights, pairing=pairing, isa=isa) for isa in machine.library.available_isas().values()
    }

    assert told == {rotated(machine, before, None, pairing=pairing)}
    assert told != {rotated(machine, qkv, None, pairing=pairing)}
