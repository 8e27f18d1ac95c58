"""Routing and experts that do not fit are refused with a text, when a program is made or when it runs."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.native_api import Format, OpKind, PanelKind
from shardline_workers.kernels.native_library import NativeError
from shardline_workers.kernels.step_buffers import StepCount
from tests.workers.kernels.native.programs import Batch, Machine, address, aligned, op

ROOM = aligned(1 << 16)  # every buffer: zeros, large enough for what passes the checks
ROOM_AT = address(ROOM)
NOTHING = Batch(num_tokens=0)
MANY_SIZES = st.one_of(st.integers(-2, 70), st.integers(-(2**31), 2**31 - 1), st.sampled_from([1024, 1025, 2**30]))
many = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def weight(kind: int = Format.W4, outputs: int = 32, inputs: int = 64) -> api.Weight:
    return api.Weight(kind, outputs, inputs, 0, ROOM_AT)


def panels(kind: int = PanelKind.INT8, inputs: int = 64) -> api.Panels:
    return api.Panels(kind, inputs, ROOM_AT)


def routes() -> api.Routes:
    return api.Routes(ROOM_AT, ROOM_AT, ROOM_AT, 8, 2)


def dealt() -> api.DealtRows:
    return api.DealtRows(*(ROOM_AT,) * 6, panels(), 2)


EXPERT = api.Expert(weight(), weight(outputs=64, inputs=16))
EXPERTS = (api.Expert * 1024)(*(EXPERT,) * 1024)  # as many as there can be

OPERATIONS: dict[str, tuple[OpKind, Callable[[], Any]]] = {
    "route": (
        OpKind.ROUTE,
        lambda: api.Route(ROOM_AT, 64, ROOM_AT, ROOM_AT, ROOM_AT, ROOM_AT, routes(), 64, 8, 0, 1, 4, 2, 1.0),
    ),
    "deal": (OpKind.DEAL_ROWS, lambda: api.DealRows(ROOM_AT, 64, routes(), ROOM_AT, dealt(), ROOM_AT, 8)),
    "experts": (
        OpKind.EXPERTS,
        lambda: api.Experts(
            routes(), dealt(), ctypes.addressof(EXPERTS), panels(inputs=16), ROOM_AT, 64, api.Activation.SILU
        ),
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_operations_of_these_tests_are_right_before_they_are_spoilt(machine: Machine, name: str) -> None:
    kind, operands = OPERATIONS[name]

    machine.run([op(kind, operands())], NOTHING)


def fields_of(structure: Any, wanted: set[type]) -> list[tuple[Any, str]]:
    """Fields of these types in a structure and in those within."""
    found = []
    for field, ctype, *_ in type(structure)._fields_:
        if ctype in wanted:
            found.append((structure, field))
        elif issubclass(ctype, ctypes.Structure):
            found += fields_of(getattr(structure, field), wanted)
    return found


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_null_pointer_is_refused_or_optional(machine: Machine, name: str) -> None:
    kind, operands = OPERATIONS[name]
    optional = {"bias", "counts"}
    for number in range(len(fields_of(operands(), {ctypes.c_void_p}))):
        spoilt = operands()
        structure, field = fields_of(spoilt, {ctypes.c_void_p})[number]
        setattr(structure, field, None)

        if field in optional:
            machine.run([op(kind, spoilt)], NOTHING)
        else:
            with pytest.raises(NativeError, match="operation 0"):
                machine.run([op(kind, spoilt)], NOTHING)


@pytest.mark.parametrize("name", OPERATIONS)
@many
@given(data=st.data())
def test_random_sizes_are_refused_or_harmless_where_no_row_counts(
    machine: Machine, name: str, data: st.DataObject
) -> None:
    kind, operands = OPERATIONS[name]
    spoilt = operands()
    sizes = fields_of(spoilt, {ctypes.c_int32, ctypes.c_int64})
    for _ in range(data.draw(st.integers(1, 3))):
        structure, field = data.draw(st.sampled_from(sizes))
        setattr(structure, field, data.draw(MANY_SIZES))

    try:
        machine.run([op(kind, spoilt)], NOTHING)
    except (NativeError, MemoryError) as error:
        assert str(error)


@pytest.mark.parametrize(
    ("name", "field", "value", "text"),
    [
        ("route", "num_experts", 0, "num_experts is not 1 … 1024"),
        ("route", "num_experts", 1025, "num_experts is not 1 … 1024"),
        ("route", "num_groups", 3, "num_groups does not divide num_experts"),
        ("route", "num_active_groups", 5, "num_active_groups is not 1 … num_groups"),
        ("route", "scoring", 2, "scoring is unknown"),
        ("route", "scale", float("nan"), "scale is no number"),
        ("route", "x_stride", 63, "the stride too small"),
        ("deal", "num_ids", 0, "num_ids not 1"),
        ("deal", "x_stride", 63, "its stride too small"),
        ("experts", "activation", 2, "activation is unknown"),
        ("experts", "delta_stride", 63, "its stride too small"),
    ],
)
def test_operands_that_make_no_sense_are_refused(
    machine: Machine, name: str, field: str, value: float, text: str
) -> None:
    kind, operands = OPERATIONS[name]
    spoilt = operands()
    setattr(spoilt, field, value)

    with pytest.raises(NativeError, match=text):
        machine.run([op(kind, spoilt)], NOTHING)


@pytest.mark.parametrize(
    ("num_active", "max_rows", "text"),
    [
        (0, 8, "number of experts is not 1 … 64"),
        (65, 8, "number of experts is not 1 … 64"),
        (5, 8, "a row takes more experts than it can choose from"),
        (4, 2**28, "num_active is not below"),
        (2, 0, "max_rows not 1"),
    ],
)
def test_routes_that_make_no_sense_are_refused(machine: Machine, num_active: int, max_rows: int, text: str) -> None:
    kind, operands = OPERATIONS["route"]
    spoilt = operands()
    spoilt.routes.num_active, spoilt.routes.max_rows = num_active, max_rows

    with pytest.raises(NativeError, match=text):
        machine.run([op(kind, spoilt)], NOTHING)


@pytest.mark.parametrize(
    ("expert", "text"),
    [
        (api.Expert(weight(Format.BF16), weight(outputs=64, inputs=16)), "panels' kind does not fit"),
        (api.Expert(weight(), weight(Format.BF16, 64, 16)), "panels' kind does not fit"),
        (api.Expert(weight(inputs=32), weight(outputs=64, inputs=16)), "not the operation's width"),
        (api.Expert(weight(outputs=64), weight(outputs=64, inputs=16)), "gate and up have not"),
        (api.Expert(weight(), weight(outputs=48, inputs=16)), "different numbers of outputs"),
    ],
)
def test_an_expert_unlike_the_others_is_refused(machine: Machine, expert: api.Expert, text: str) -> None:
    kind, operands = OPERATIONS["experts"]
    mixed = (api.Expert * 2)(EXPERT, expert)
    spoilt = operands()
    spoilt.experts = ctypes.addressof(mixed)

    with pytest.raises(NativeError, match=text):
        machine.run([op(kind, spoilt)], NOTHING)


def test_more_tokens_than_can_be_routed_are_refused(machine: Machine) -> None:
    kind, operands = OPERATIONS["route"]

    with pytest.raises(NativeError, match="9 tokens are routed; there is room for 8"):
        machine.run([op(kind, operands())], Batch(num_tokens=9))


def test_only_tokens_are_routed(machine: Machine) -> None:
    kind, operands = OPERATIONS["route"]

    with pytest.raises(NativeError, match="rows must be SL_TOKENS"):
        machine.run([op(kind, operands(), rows=StepCount.SAMPLED)], Batch(num_sampled=0))


def test_rows_of_no_expert_here_are_passed_over_whatever_their_ids(machine: Machine) -> None:
    ids = np.array([[-1, 2**31 - 1], [-(2**31), 8]], dtype=np.int32)
    id_to_number = np.array([-1, -1, 5, 2, -7, 2**31 - 1, -(2**31), -1], dtype=np.int32)  # none of them is 0 or 1
    ids = np.concatenate([ids, np.arange(8, dtype=np.int32).reshape(4, 2)])
    num_rows = np.array([6], dtype=np.int32)
    kind, operands = OPERATIONS["deal"]
    deal = operands()
    deal.routes.expert_ids, deal.routes.num_rows = address(ids), address(num_rows)
    deal.id_to_number = address(id_to_number)
    places, num_active = np.zeros(16, dtype=np.int32), np.full(1, 7, dtype=np.int32)
    deal.dealt.places, deal.dealt.num_active = address(places), address(num_active)

    machine.run([op(kind, deal)], NOTHING, num_threads=2)

    assert (places[:12] == -1).all() and num_active == 0
