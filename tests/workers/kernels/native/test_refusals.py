"""Nothing that is handed in crashes the process: wrong sizes, pointers and steps are refused with a text."""

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.native_api import Format, KvFormat, OpKind, PanelKind, Source
from shardline_workers.kernels.native_library import NativeError
from shardline_workers.kernels.step_buffers import StepCount
from tests.workers.kernels.native.programs import NO_PANELS, Batch, Machine, address, aligned, op

SIZES = st.one_of(
    st.integers(-2, 70), st.integers(-(2**63), 2**63 - 1), st.sampled_from([2**30, 2**31, 2**31 - 1, 2**62])
)
KINDS = st.one_of(st.integers(-1, 7), st.integers(-(2**31), 2**31 - 1))
ROOM = aligned(1 << 16)  # every buffer of the fuzzed operations: large enough for what passes the checks
many = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@many
@given(KINDS, SIZES, SIZES)
def test_sizes_are_positive_or_refused(machine: Machine, kind: int, first: int, second: int) -> None:
    for function in (machine.library.sl_weight_bytes, machine.library.sl_source_bytes, machine.library.sl_panel_bytes):
        size = function(kind, first, second)

        assert size > 0 or (size < 0 and machine.library.sl_last_error())


@many
@given(KINDS, KINDS, SIZES, SIZES, SIZES, SIZES, SIZES, SIZES)
def test_packing_stays_within_its_buffers(
    machine: Machine,
    kind: int,
    source: int,
    rows: int,
    inputs: int,
    first: int,
    step: int,
    rows_bytes: int,
    packed_bytes: int,
) -> None:
    room = min(rows_bytes, ROOM.nbytes), min(packed_bytes, ROOM.nbytes)
    packed = aligned(ROOM.nbytes)
    packing = api.Packing(kind, source, rows, inputs, first, step, address(ROOM), room[0], address(packed), room[1])

    status = machine.library.sl_pack(ctypes.byref(packing))

    assert status == 0 or machine.library.sl_last_error()


def weight(kind: int = Format.W4, outputs: int = 32, inputs: int = 64) -> api.Weight:
    return api.Weight(kind, outputs, inputs, 0, address(ROOM))


def panels(kind: int = PanelKind.INT8, inputs: int = 64) -> api.Panels:
    return api.Panels(kind, inputs, address(ROOM))


def cache(form: KvFormat = KvFormat.BF16) -> api.Cache:
    return api.Cache(address(ROOM), 2, 32, 1, 32, form, 0)


def choice(vocab: int = 64, stride: int = 64, num_top: int = 2) -> api.Choice:
    room = address(ROOM)
    pointers = [name for name, kind in api.Choice._fields_[4:] if kind is ctypes.c_void_p]
    adjustments = api.Adjustments(room, room, room, room, room, 8)
    return api.Choice(room, stride, vocab, num_top, adjustments=adjustments, **dict.fromkeys(pointers, room))


def gather_logits(rank: int, out: int | None) -> api.GatherLogits:
    room = address(ROOM)
    return api.GatherLogits(room, room, 32, out, 64, room, room, rank, 2, (32, 32))


ROOM_AT = address(ROOM)
OPERATIONS: dict[str, tuple[OpKind, Callable[[], ctypes.Structure], StepCount]] = {
    "embedding": (OpKind.EMBEDDING, lambda: api.Embedding(weight(), ROOM_AT, 64), StepCount.TOKENS),
    "norm": (OpKind.NORM, lambda: api.Norm(ROOM_AT, ROOM_AT, ROOM_AT, None, panels(), 64, 1e-5), StepCount.TOKENS),
    "quantise": (OpKind.QUANTISE, lambda: api.Quantise(ROOM_AT, 64, panels()), StepCount.TOKENS),
    "linear": (OpKind.LINEAR, lambda: api.Linear(panels(), weight(), ROOM_AT, 32), StepCount.TOKENS),
    "gated linear": (
        OpKind.GATED_LINEAR,
        lambda: api.GatedLinear(panels(), weight(), panels(inputs=16)),
        StepCount.TOKENS,
    ),
    "activation": (
        OpKind.GATED_ACTIVATION,
        lambda: api.GatedActivation(ROOM_AT, None, panels(), 64),
        StepCount.TOKENS,
    ),
    "rotate": (
        OpKind.ROTATE_STORE,
        lambda: api.RotateStore(ROOM_AT, 96, ROOM_AT, ROOM_AT, ROOM_AT, 64, 32, 0, 1, cache()),
        StepCount.TOKENS,
    ),
    "attention": (
        OpKind.ATTENTION,
        lambda: api.Attention(ROOM_AT, cache(), ROOM_AT, NO_PANELS, 1, 1, 0, 0, None),
        StepCount.TOKENS,
    ),
    "rotate int8": (
        OpKind.ROTATE_STORE,
        lambda: api.RotateStore(ROOM_AT, 96, ROOM_AT, ROOM_AT, ROOM_AT, 64, 32, 0, 1, cache(KvFormat.INT8)),
        StepCount.TOKENS,
    ),
    "attention int8": (
        OpKind.ATTENTION,
        lambda: api.Attention(ROOM_AT, cache(KvFormat.INT8), ROOM_AT, NO_PANELS, 1, 1, 3, 30, ROOM_AT),
        StepCount.TOKENS,
    ),
    "gather": (OpKind.GATHER_SAMPLED, lambda: api.Gather(ROOM_AT, ROOM_AT + 32768, 64), StepCount.SAMPLED),  # type: ignore[operator]
    "greedy": (OpKind.CHOOSE_GREEDY, choice, StepCount.SAMPLED),
    "drawn": (OpKind.CHOOSE_DRAWN, choice, StepCount.SAMPLED),
    "logprobs": (OpKind.LOGPROBS, choice, StepCount.SAMPLED),
    "soft cap": (OpKind.SOFT_CAP, lambda: api.SoftCap(ROOM_AT, 64, 64, 30), StepCount.SAMPLED),
    "adjust": (OpKind.ADJUST_LOGITS, choice, StepCount.SAMPLED),
    "restore": (OpKind.RESTORE_LOGITS, choice, StepCount.SAMPLED),
    "gather logits": (OpKind.GATHER_LOGITS, lambda: gather_logits(0, ROOM_AT), StepCount.SAMPLED),
    "tell logits": (OpKind.GATHER_LOGITS, lambda: gather_logits(1, None), StepCount.SAMPLED),
    "all-reduce": (OpKind.ALL_REDUCE, lambda: api.Exchange(ROOM_AT, ROOM_AT, 64), StepCount.TOKENS),
    "send": (OpKind.SEND, lambda: api.Exchange(ROOM_AT, ROOM_AT, 64, 1), StepCount.TOKENS),
    "receive": (OpKind.RECEIVE, lambda: api.Exchange(ROOM_AT, ROOM_AT, 64, 1), StepCount.TOKENS),
}
NOTHING = Batch(num_tokens=0, num_sampled=0)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_operations_of_these_tests_are_right_before_they_are_spoilt(machine: Machine, name: str) -> None:
    kind, operands, rows = OPERATIONS[name]

    machine.run([op(kind, operands(), rows=rows)], NOTHING)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_null_pointer_is_refused_or_optional(machine: Machine, name: str) -> None:
    kind, operands, rows = OPERATIONS[name]
    for field, ctype in type(operands())._fields_:  # type: ignore[misc]
        if ctype is ctypes.c_void_p:
            spoilt = operands()
            setattr(spoilt, field, None)
            try:
                machine.run([op(kind, spoilt, rows=rows)], NOTHING)
            except NativeError as error:
                assert "operation 0" in str(error)


@pytest.mark.parametrize("name", OPERATIONS)
@many
@given(data=st.data())
def test_random_sizes_are_refused_or_harmless_where_no_row_counts(
    machine: Machine, name: str, data: st.DataObject
) -> None:
    kind, operands, rows = OPERATIONS[name]
    spoilt = op(kind, operands(), rows=rows)
    words = ctypes.cast(ctypes.byref(spoilt), ctypes.POINTER(ctypes.c_int32))
    for _ in range(data.draw(st.integers(1, 3))):
        word = data.draw(st.integers(0, ctypes.sizeof(api.Op) // 4 - 1))
        words[word] = data.draw(st.one_of(st.integers(-2, 70), st.integers(-(2**31), 2**31 - 1)))

    try:
        machine.run([spoilt], NOTHING)
    except (NativeError, MemoryError) as error:
        assert str(error)


def whole_step() -> Batch:
    """Two sequences of two tokens, on blocks 1 and 0."""
    return Batch(
        token_ids=[1, 2, 3, 4],
        positions=[0, 1, 0, 1],
        cache_places=[32, 33, 0, 1],
        query_starts=[0, 2, 4],
        context_lengths=[2, 2],
        slots=[0, 1],
        block_tables=[[1, 0], [0, 1]],
        sampled_rows=[1, 3],
    )


STEP_OPS = ("embedding", "rotate", "attention", "gather")


def run_step(machine: Machine, batch: Batch) -> None:
    ROOM[:] = 0
    ops = [op(kind, operands(), rows=rows) for kind, operands, rows in (OPERATIONS[name] for name in STEP_OPS)]
    machine.run(ops, batch, max_tokens=8, max_seqs=4)


def test_the_step_of_these_tests_is_right_before_it_is_spoilt(machine: Machine) -> None:
    run_step(machine, whole_step())


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("token_ids", [1, 2, 3, 32], r"token_ids\[3\] is 32; it must be 0 … 31"),
        ("positions", [0, -1, 0, 1], r"positions\[1\] is -1; it must be 0 … 63"),
        ("cache_places", [32, 33, 0, 64], r"cache_places\[3\] is 64; it must be 0 … 63"),
        ("query_starts", [0, 2, 5], r"sequence 1 has tokens 2 … 4 of 4"),
        ("query_starts", [0, 2, 1], r"sequence 1 has tokens 2 … 0 of 4"),
        ("context_lengths", [2, 65], r"context_lengths\[1\] is 65; it must be 2 … 64"),
        ("context_lengths", [1, 2], r"context_lengths\[0\] is 1; it must be 2 … 64"),
        ("slots", [0, 4], r"slots\[1\] is 4; it must be 0 … 3"),
        ("block_tables", [[1, 0], [2, 1]], r"block table\[0\] is 2; it must be 0 … 1"),
        ("sampled_rows", [1, 4], r"sampled_rows\[1\] is 4; it must be 0 … 3"),
    ],
)
def test_a_step_that_does_not_fit_is_refused(machine: Machine, field: str, value: list[int], text: str) -> None:
    batch = whole_step()
    setattr(batch, field, value)

    with pytest.raises(NativeError, match=text):
        run_step(machine, batch)


@pytest.mark.parametrize("count", list(StepCount))
@pytest.mark.parametrize("value", [-1, 9, 2**31 - 1])
def test_counts_beyond_the_limits_are_refused(machine: Machine, count: StepCount, value: int) -> None:
    batch = whole_step()
    batch.counts = {count: value}

    with pytest.raises(NativeError, match=rf"header\[{int(count)}\] is {value}"):
        run_step(machine, batch)


@pytest.mark.parametrize(
    ("row", "slot", "length", "text"),
    [
        (2, 0, 1, r"adjusted_rows\[0\] is 2; it must be 0 … 1"),
        (0, 4, 1, r"adjusted_slots\[0\] is 4; it must be 0 … 3"),
        (0, 1, 9, r"adjustments' lengths\[1\] is 9; it must be 0 … 8"),
        (0, 1, -1, r"adjustments' lengths\[1\] is -1; it must be 0 … 8"),
    ],
)
def test_adjustments_that_do_not_fit_are_refused(machine: Machine, row: int, slot: int, length: int, text: str) -> None:
    rows, slots, lengths = (np.array([value] * 4, dtype=np.int64) for value in (row, slot, length))
    operand = choice()
    operand.adjusted_rows, operand.adjusted_slots = address(rows), address(slots)
    operand.adjustments.lengths = address(lengths)
    batch = whole_step()
    batch.counts = {StepCount.ADJUSTED: 1}

    with pytest.raises(NativeError, match=text):
        machine.run([op(OpKind.ADJUST_LOGITS, operand, rows=StepCount.SAMPLED)], batch, max_tokens=8, max_seqs=4)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("window", -1, "window is negative"),
        ("softcap", -0.5, "softcap is no number from 0"),
        ("softcap", float("nan"), "softcap is no number from 0"),
    ],
)
def test_rules_of_attention_that_make_no_sense_are_refused(
    machine: Machine, field: str, value: float, text: str
) -> None:
    attention = OPERATIONS["attention"][1]()
    setattr(attention, field, value)

    with pytest.raises(NativeError, match=text):
        machine.run([op(OpKind.ATTENTION, attention)], NOTHING)


@pytest.mark.parametrize(
    ("name", "field", "value", "text"),
    [
        ("embedding", "scale", float("inf"), "scale is no number"),
        ("norm", "delta", None, "delta_weight is there without delta"),
        ("gated linear", "activation", 2, "activation is unknown"),
        ("activation", "activation", -1, "activation is unknown"),
        ("rotate", "epsilon", float("nan"), "epsilon is no number from 0"),
        ("soft cap", "cap", 0, "cap is no number above 0"),
        ("soft cap", "cap", float("nan"), "cap is no number above 0"),
        ("soft cap", "width", 65, "the stride too small"),
        ("embedding", "first_id", 1, "first_id does not fit it"),
        ("embedding", "is_part", 2, "is_part is not 0 or 1"),
        ("adjust", "first_id", -1, "first_id does not fit it"),
        ("gather logits", "out", None, "out is for rank 0 alone"),
        # An address is no name for a test: it is another one in each process.
        pytest.param("tell logits", "out", ROOM_AT, "out is for rank 0 alone", id="tell logits-out"),
        ("gather logits", "out_stride", 63, "out's stride is too small"),
        ("tell logits", "x_stride", 31, "x's stride is too small"),
        ("tell logits", "rank", 2, "has no such rank"),
        ("gather logits", "num_ranks", 9, "num_ranks is not 2"),
        ("all-reduce", "width", 0, "width not 1"),
        ("send", "ranks", None, "ranks or x is NULL"),
    ],
)
def test_operands_that_make_no_sense_are_refused(
    machine: Machine, name: str, field: str, value: float | None, text: str
) -> None:
    kind, operands, rows = OPERATIONS[name]
    spoilt = operands()
    if name == "norm":
        spoilt.delta_weight = ROOM_AT
    setattr(spoilt, field, value)

    with pytest.raises(NativeError, match=text):
        machine.run([op(kind, spoilt, rows=rows)], NOTHING)


@pytest.mark.parametrize("form", [-1, 2])
def test_unknown_formats_of_the_cache_are_refused(machine: Machine, form: int) -> None:
    with pytest.raises(NativeError, match=rf"the cache's format is {form}; it must be 0 … 1"):
        machine.library.kv_cache_bytes(api.Cache(None, 1, 32, 1, 32, form, 0))


def test_unknown_instruction_sets_and_limits_are_refused(machine: Machine) -> None:
    kind, operands, rows = OPERATIONS["quantise"]
    for isa, max_tokens, text in [(99, 8, "instruction set 99"), (-1, 8, "instruction set -1"), (0, 0, "a limit is 0")]:
        with pytest.raises(NativeError, match=text):
            machine.run([op(kind, operands(), rows=rows)], NOTHING, isa=isa, max_tokens=max_tokens)


@pytest.mark.parametrize("num_threads", [0, -5, 257])
def test_pools_of_no_or_too_many_threads_are_refused(machine: Machine, num_threads: int) -> None:
    assert machine.library.sl_pool_create(num_threads) is None
    assert machine.library.sl_last_error().decode() == f"num_threads is {num_threads}; it must be 1 … 256"


def test_every_source_of_every_format_can_be_packed(machine: Machine) -> None:
    for source in Source:
        for kind in Format:
            rows = np.zeros((16, machine.library.source_bytes(source, 1, 256)), dtype=np.uint8)
            tiles = aligned(machine.library.weight_bytes(kind, 16, 256))

            machine.pack_into(tiles, kind, rows, source=source, num_inputs=256)
