"""Attention gives a token the same bits however its context was computed, and reads no more than it sees."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardline_workers.kernels.native_api import KvFormat
from tests.workers.kernels.native.attention_layers import (
    ALL_AT_ONCE,
    PLAIN,
    SHAPES,
    Heads,
    Layer,
    Rule,
    blocks_of,
    chunks_batch,
    random_rows,
)
from tests.workers.kernels.native.programs import Machine, families


@pytest.mark.parametrize("form", KvFormat)
def test_blocks_before_the_window_are_not_read(machine: Machine, form: KvFormat) -> None:
    heads, rule = SHAPES[0], Rule(window=64)
    qkv, blocks = random_rows(heads, 400), list(range(7))
    layer = Layer(machine, heads, form=form, rule=rule)
    layer.run(qkv[:399], chunks_batch(heads, [(0, 399, blocks)]))
    kept = layer.room.copy()

    layer.room.reshape(64, -1)[:5] = 0xFF  # keys 0 … 319; the window of token 399 begins at 336
    last = layer.run(qkv[399:], chunks_batch(heads, [(399, 400, blocks)]))

    layer.room[:] = kept
    assert last.tobytes() == layer.run(qkv[399:], chunks_batch(heads, [(399, 400, blocks)])).tobytes()


@pytest.mark.parametrize("form", KvFormat)
@pytest.mark.parametrize("rule", [PLAIN, ALL_AT_ONCE, Rule(window=257)])
@pytest.mark.parametrize("heads", [SHAPES[0], SHAPES[3]])
def test_a_token_has_the_same_bits_however_its_context_was_computed(
    machine: Machine, heads: Heads, rule: Rule, form: KvFormat
) -> None:
    tokens = 301  # more than one split
    qkv, other = random_rows(heads, tokens), random_rows(heads, 40, seed=1)
    blocks = blocks_of(heads, tokens)
    whole = chunks_batch(heads, [(0, tokens, blocks)])

    for family in families(machine, form):
        once = Layer(machine, heads, rule=rule, form=form).run(qkv, whole, isa=family[0])
        for isa, num_threads in itertools.product(family, (1, 2)):
            layer = Layer(machine, heads, rule=rule, form=form)
            beside = chunks_batch(heads, [(0, 40, [60, 61]), (0, 100, blocks)])
            parts = [layer.run(np.concatenate([other, qkv[:100]]), beside, isa=isa, num_threads=num_threads)[40:]]
            for start, end in [(100, 101), (101, 255), (255, 257), (257, 300), (300, 301)]:
                batch = chunks_batch(heads, [(start, end, blocks)])
                parts.append(layer.run(qkv[start:end], batch, isa=isa, num_threads=num_threads))

            assert np.concatenate(parts).tobytes() == once.tobytes(), (isa, num_threads)


@pytest.mark.parametrize("form", KvFormat)
def test_a_sequence_that_is_broken_breaks_no_other(machine: Machine, form: KvFormat) -> None:
    heads = SHAPES[0]
    qkv, broken = random_rows(heads, 33), np.full((33, heads.width), np.nan, dtype=np.float32)

    for isa in machine.library.available_isas().values():
        alone = Layer(machine, heads, form=form).run(qkv, chunks_batch(heads, [(0, 33, [0])]), isa=isa)
        layer = Layer(machine, heads, form=form)
        both = chunks_batch(heads, [(0, 33, [1]), (0, 33, [0])])
        out = layer.run(np.concatenate([broken, qkv]), both, isa=isa)
        reused = layer.run(qkv, chunks_batch(heads, [(0, 33, [1])]), isa=isa)

        assert np.isnan(out[:33]).all()
        assert out[33:].tobytes() == alone.tobytes() == reused.tobytes()


@pytest.mark.parametrize("form", KvFormat)
def test_blocks_can_be_moved_as_they_are(machine: Machine, form: KvFormat) -> None:
    heads = SHAPES[0]
    qkv = random_rows(heads, 70)
    layer = Layer(machine, heads, form=form)
    layer.run(qkv[:69], chunks_batch(heads, [(0, 69, [0, 1])]))
    block = layer.room.reshape(64, -1)

    block[[10, 20]] = block[[0, 1]]
    moved = layer.run(qkv[69:], chunks_batch(heads, [(69, 70, [10, 20])]))

    assert moved.tobytes() == layer.run(qkv[69:], chunks_batch(heads, [(69, 70, [0, 1])])).tobytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    heads=st.sampled_from([Heads(4, 4, 16, 32), Heads(6, 2, 48, 32), Heads(3, 1, 32, 64)]),
    form=st.sampled_from(KvFormat),
    window=st.integers(0, 700),
    softcap=st.sampled_from([0, 0.5, 50]),
    has_sinks=st.booleans(),
    tokens=st.integers(1, 600),
    cuts=st.sets(st.integers(1, 599), max_size=4),
    isa=st.integers(0, 5),
)
def test_any_rule_in_any_chunks_gives_the_same_bits(
    machine: Machine,
    heads: Heads,
    form: KvFormat,
    window: int,
    softcap: float,
    has_sinks: bool,
    tokens: int,
    cuts: set[int],
    isa: int,
) -> None:
    rule = Rule(window, softcap, has_sinks)
    qkv, blocks = random_rows(heads, tokens), blocks_of(heads, tokens)
    available = list(machine.library.available_isas().values())
    family = next(f for f in families(machine, form) if available[isa % len(available)] in f)
    whole = chunks_batch(heads, [(0, tokens, blocks)])
    once = Layer(machine, heads, form=form, rule=rule).run(qkv, whole, isa=family[-1])

    layer, ends = Layer(machine, heads, form=form, rule=rule), sorted({cut for cut in cuts if cut < tokens} | {tokens})
    parts = [
        layer.run(
            qkv[start:end],
            chunks_batch(heads, [(start, end, blocks)]),
            isa=available[isa % len(available)],
            num_threads=2,
        )
        for start, end in zip([0, *ends], ends, strict=False)
    ]

    assert np.isfinite(once).all()
    assert np.concatenate(parts).tobytes() == once.tobytes()
