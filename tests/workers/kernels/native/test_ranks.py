"""Ranks that exchange through shared memory, here as threads of one process: bits, chunks, errors, limits."""

import ctypes
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ctypes import c_int64, c_void_p
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline_workers.kernels.native_api import MAX_RANKS, Status
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.kernels.native_ranks_api import Number, RanksOptions, RanksStatus

SLOT_BYTES = 1024
MS = 1_000_000
FLOATS = {Number.FLOAT32: np.float32, Number.FLOAT64: np.float64}
Array = npt.NDArray[Any]


class Rank:
    """One rank's calls; each gives the status."""

    def __init__(self, library: NativeLibrary, handle: c_void_p, rank: int) -> None:
        self.library, self.handle, self.rank = library, handle, rank

    def call(self, name: str, *arguments: object) -> int:
        status: int = getattr(self.library, f"sl_ranks_{name}")(self.handle, *arguments)
        return status

    def all_reduce(self, values: Array, number: Number = Number.FLOAT32) -> int:
        return self.call("all_reduce", values.ctypes.data, values.size, number)

    def error(self) -> str:
        return bytes(self.library.sl_last_error()).decode()


def options(rank: int, num_ranks: int, **changed: int) -> RanksOptions:
    plain = {"slot_bytes": SLOT_BYTES, "spin_ns": 20_000, "join_ns": 20_000 * MS, "wait_ns": 20_000 * MS}
    return RanksOptions(rank=rank, num_ranks=num_ranks, **{**plain, **changed})


def join(library: NativeLibrary, file: int, wanted: RanksOptions) -> tuple[int, c_void_p, str]:
    handle = c_void_p()
    status = library.sl_ranks_join(file, ctypes.byref(wanted), ctypes.byref(handle))
    return status, handle, (library.sl_last_error() or b"").decode()


@contextmanager
def shared_file(library: NativeLibrary, num_ranks: int) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        os.ftruncate(file.fileno(), library.sl_ranks_bytes(num_ranks, SLOT_BYTES))
        yield file.fileno()


@contextmanager
def group(
    library: NativeLibrary, num_ranks: int, **changed: int
) -> Iterator[Callable[[Callable[[Rank], Any]], list[Any]]]:
    """Gives what runs a function for each rank, each in a thread of its own, and returns what they gave."""
    with shared_file(library, num_ranks) as file, ThreadPoolExecutor(num_ranks) as threads:
        wanted = [options(rank, num_ranks, **changed) for rank in range(num_ranks)]
        joined = list(threads.map(lambda each: join(library, file, each), wanted))
        assert [status for status, _, _ in joined] == [Status.OK] * num_ranks
        ranks = [Rank(library, handle, number) for number, (_, handle, _) in enumerate(joined)]
        try:
            yield lambda play: list(threads.map(play, ranks))
        finally:
            for rank in ranks:
                library.sl_ranks_leave(rank.handle)


def uneven_numbers(num_ranks: int, count: int, dtype: type = np.float32) -> Array:
    """[num_ranks, count] of so different sizes that another order of summing gives other bits."""
    random = np.random.default_rng(count)
    return (random.standard_normal((num_ranks, count)) * 2.0 ** random.integers(-12, 12, (num_ranks, count))).astype(
        dtype
    )


def sum_in_order(rows: Sequence[Array]) -> Array:
    total = rows[0].copy()
    for row in rows[1:]:
        total = total + row
    return total


@pytest.mark.parametrize("number", [Number.FLOAT32, Number.FLOAT64])
@pytest.mark.parametrize("num_ranks", [2, 3, MAX_RANKS])
def test_sums_have_the_bits_of_a_loop_over_ranks(library: NativeLibrary, num_ranks: int, number: Number) -> None:
    values = uneven_numbers(num_ranks, 576, FLOATS[number])
    wanted = sum_in_order(list(values))

    with group(library, num_ranks) as on_each:
        statuses = on_each(lambda rank: rank.all_reduce(values[rank.rank], number))

    assert statuses == [Status.OK] * num_ranks
    assert all(np.array_equal(row.view(np.uint8), wanted.view(np.uint8)) for row in values)
    if num_ranks > 2:
        assert not np.array_equal(sum_in_order(list(uneven_numbers(num_ranks, 576, FLOATS[number])[::-1])), wanted)


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(0, 1100), min_size=1, max_size=4), num_ranks=st.integers(2, 4))
def test_chunks_change_nothing(library: NativeLibrary, counts: list[int], num_ranks: int) -> None:
    values = [uneven_numbers(num_ranks, count) for count in counts]
    wanted = [sum_in_order(list(each)) for each in values]
    gathered = [np.zeros((num_ranks, num_ranks, count), np.float32) for count in counts]
    reduced = [np.zeros((num_ranks, count), np.float32) for count in counts]
    columns = [np.stack([each + np.float32(row) for row in range(num_ranks)], axis=1) for each in values]

    def play(rank: Rank) -> list[int]:
        me, statuses = rank.rank, []
        for each, all_of, part, column in zip(values, gathered, reduced, columns, strict=True):
            own = each[me].copy()
            statuses += [
                rank.call("all_gather", own.ctypes.data, all_of[me].ctypes.data, own.nbytes),
                rank.call("reduce_scatter", column[me].ctypes.data, part[me].ctypes.data, own.size, Number.FLOAT32),
                rank.all_reduce(own),
            ]
            each[me] = own
        return statuses

    with group(library, num_ranks) as on_each:
        statuses = on_each(play)

    assert statuses == [[Status.OK] * 3 * len(counts)] * num_ranks
    for each, all_of, part, column, total, count in zip(
        values, gathered, reduced, columns, wanted, counts, strict=True
    ):
        original = uneven_numbers(num_ranks, count)
        assert all(np.array_equal(row, total) for row in each)
        assert all(np.array_equal(one, original) for one in all_of)
        assert all(np.array_equal(part[row], sum_in_order(list(column[:, row]))) for row in range(num_ranks))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), num_ranks=st.integers(2, 4))
def test_every_piece_of_an_exchange_arrives(library: NativeLibrary, data: st.DataObject, num_ranks: int) -> None:
    sizes = np.array(data.draw(st.lists(st.integers(0, 1500), min_size=num_ranks**2, max_size=num_ranks**2)))
    sizes = sizes.reshape(num_ranks, num_ranks)
    random = np.random.default_rng(7)
    sent = [[random.integers(0, 256, size, np.uint8) for size in row] for row in sizes]
    received = [np.zeros(sizes[:, rank].sum(), np.uint8) for rank in range(num_ranks)]
    table = c_int64 * num_ranks

    def play(rank: Rank) -> int:
        me = rank.rank
        values = np.concatenate(sent[me])
        sends, takes = table(*map(int, sizes[me])), table(*map(int, sizes[:, me]))
        return rank.call("all_to_all", values.ctypes.data, sends, received[me].ctypes.data, takes)

    with group(library, num_ranks) as on_each:
        statuses = on_each(play)

    assert statuses == [Status.OK] * num_ranks
    for rank in range(num_ranks):
        assert np.array_equal(received[rank], np.concatenate([row[rank] for row in sent]))


def test_messages_between_two_keep_their_order_and_leave_the_third_alone(library: NativeLibrary) -> None:
    messages = [np.arange(size, dtype=np.uint8) for size in (0, 1, 256, 257, 3000)]
    received = [np.zeros_like(message) for message in messages]

    def play(rank: Rank) -> list[int]:
        if rank.rank == 0:
            return [rank.call("send", message.ctypes.data, message.nbytes, 2) for message in messages]
        if rank.rank == 2:
            return [rank.call("receive", message.ctypes.data, message.nbytes, 0) for message in received]
        return []

    with group(library, 3) as on_each:
        statuses = on_each(play)

    assert statuses == [[Status.OK] * 5, [], [Status.OK] * 5]
    assert all(np.array_equal(*pair) for pair in zip(messages, received, strict=True))


def test_bfloat16_is_summed_in_float32_and_rounded_once(library: NativeLibrary) -> None:
    # 1 + 2^-8 + 2^-8: rounding after each addition would lose both.
    values = np.array([[0x3F80], [0x3B80], [0x3B80]], np.uint16)

    with group(library, 3) as on_each:
        on_each(lambda rank: rank.all_reduce(values[rank.rank], Number.BFLOAT16))

    assert values.tolist() == [[0x3F81]] * 3


class TestFailures:
    def test_a_rank_that_does_not_come_is_named_when_the_limit_is_over(self, library: NativeLibrary) -> None:
        values = np.ones(4, np.float32)

        def play(rank: Rank) -> tuple[int, str]:
            return (rank.all_reduce(values), rank.error()) if rank.rank == 0 else (0, "")

        with group(library, 2, wait_ns=50 * MS) as on_each:
            status, text = on_each(play)[0]
            later = on_each(lambda rank: rank.call("barrier"))

        assert status == RanksStatus.LATE
        assert text.startswith(f"rank 1 (process {os.getpid()}) did not come within the limit, as rank 0 found")
        assert later == [RanksStatus.LATE] * 2

    def test_a_rank_that_left_fails_the_others_at_once(self, library: NativeLibrary) -> None:
        def play(rank: Rank) -> int:
            if rank.rank == 1:
                library.sl_ranks_leave(rank.handle)
                rank.handle = c_void_p()
                return 0
            return rank.call("barrier")

        with group(library, 3) as on_each:
            statuses = on_each(play)

        assert statuses == [RanksStatus.LOST, 0, RanksStatus.LOST]

    @pytest.mark.parametrize("second", ["count", "number", "call"])
    def test_ranks_that_make_different_calls_all_fail(self, library: NativeLibrary, second: str) -> None:
        values = np.ones(8, np.float32)

        def play(rank: Rank) -> int:
            if rank.rank == 0:
                return rank.all_reduce(values)
            other = {
                "count": lambda: rank.all_reduce(values[:4].copy()),
                "number": lambda: rank.all_reduce(np.ones(8, np.float64), Number.FLOAT64),
                "call": lambda: rank.call("barrier"),
            }
            return other[second]()

        with group(library, 2) as on_each:
            statuses = on_each(play)

        assert statuses == [RanksStatus.DIFFER] * 2

    def test_an_exchange_of_other_sizes_than_expected_fails(self, library: NativeLibrary) -> None:
        table = c_int64 * 2

        def play(rank: Rank) -> int:
            values, received = np.zeros(8, np.uint8), np.zeros(8, np.uint8)
            takes = table(4, 4) if rank.rank == 0 else table(3, 4)
            return rank.call("all_to_all", values.ctypes.data, table(4, 4), received.ctypes.data, takes)

        with group(library, 2) as on_each:
            statuses = on_each(play)

        assert statuses[1] == RanksStatus.DIFFER

    def test_a_message_of_another_size_than_expected_fails(self, library: NativeLibrary) -> None:
        values = np.zeros(8, np.uint8)

        def play(rank: Rank) -> int:
            if rank.rank == 0:
                return rank.call("send", values.ctypes.data, 8, 1)
            return rank.call("receive", np.zeros(4, np.uint8).ctypes.data, 4, 0)

        with group(library, 2) as on_each:
            statuses = on_each(play)

        assert statuses == [Status.OK, RanksStatus.DIFFER]

    def test_a_group_that_is_not_complete_in_time_says_who_is_missing(self, library: NativeLibrary) -> None:
        with shared_file(library, 2) as file:
            status, _, text = join(library, file, options(0, 2, join_ns=30 * MS))

        assert (status, text) == (
            RanksStatus.LATE,
            "rank 1 has not joined within rank 0's limit; the group is broken",
        )

    def test_a_rank_of_another_shape_is_refused(self, library: NativeLibrary) -> None:
        with shared_file(library, 4) as file:
            join(library, file, options(0, 2, join_ns=MS))
            status, _, text = join(library, file, options(1, 3))

        assert status == Status.BAD_ARGUMENT
        assert text == "num_ranks is 3 and slot_bytes 1024, but another rank joined with 2 and 1024"

    def test_a_rank_that_is_taken_is_refused(self, library: NativeLibrary) -> None:
        with shared_file(library, 2) as file:
            join(library, file, options(0, 2, join_ns=MS))
            status, _, text = join(library, file, options(0, 2))

        assert (status, text) == (
            Status.BAD_ARGUMENT,
            f"rank 0 is taken: process {os.getpid()} has joined as it",
        )

    def test_a_file_that_is_too_small_is_refused(self, library: NativeLibrary) -> None:
        with shared_file(library, 2) as file:
            status, _, text = join(library, file, options(0, 3))

        assert status == Status.BAD_ARGUMENT
        assert "3 ranks need" in text


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"num_ranks": 1}, "num_ranks is 1; it must be 2 … 8"),
        ({"num_ranks": 9}, "num_ranks is 9; it must be 2 … 8"),
        ({"rank": 2}, "rank is 2; it must be 0 … 1"),
        ({"slot_bytes": 1000}, "slot_bytes is 1000; it must be a multiple of 256, 1024 … 67108864"),
        ({"slot_bytes": 1 << 27}, "slot_bytes is 134217728; it must be a multiple of 256, 1024 … 67108864"),
        ({"wait_ns": 0}, "limits must be positive"),
    ],
)
def test_options_that_cannot_work_are_refused(library: NativeLibrary, wrong: dict[str, int], text: str) -> None:
    plain = {"rank": 0, "num_ranks": 2, "slot_bytes": SLOT_BYTES, "spin_ns": 0, "join_ns": MS, "wait_ns": MS}

    status, _, told = join(library, -1, RanksOptions(**{**plain, **wrong}))

    assert status == Status.BAD_ARGUMENT
    assert text in told


def test_arguments_that_cannot_work_are_refused_and_the_group_stays_whole(library: NativeLibrary) -> None:
    values = np.ones(4, np.float32)
    data = values.ctypes.data
    wrong: list[tuple[str, tuple[object, ...], str]] = [
        ("all_reduce", (data, -1, 0), "the size is -1; it must be 0 … 2^50"),
        ("all_reduce", (None, 4, 0), "a buffer is NULL"),
        ("all_reduce", (data, 4, 3), "number is 3; it must be 0 … 2"),
        ("reduce_scatter", (data, data, 4, -1), "number is -1; it must be 0 … 2"),
        ("all_gather", (data, None, 4), "a buffer is NULL"),
        ("broadcast", (data, 4, 2), "source is 2; it must be 0 … 1"),
        ("all_to_all", (data, None, data, None), "ranks or a table of sizes is NULL"),
        ("all_to_all", (data, (c_int64 * 2)(4, -4), data, (c_int64 * 2)(0, 0)), "the size is -1; it must be"),
        ("send", (data, 4, 5), "destination is 5; it must be 0 … 1"),
    ]

    def play(rank: Rank) -> list[tuple[int, bool]]:
        told = [(rank.call(name, *arguments), text in rank.error()) for name, arguments, text in wrong]
        told.append((rank.call("receive", data, 4, rank.rank), "the rank itself" in rank.error()))
        return [*told, (rank.call("barrier"), True)]

    with group(library, 2) as on_each:
        told = on_each(play)

    assert told == [[(Status.BAD_ARGUMENT, True)] * (len(wrong) + 1) + [(Status.OK, True)]] * 2


def test_without_a_group_every_call_is_refused(library: NativeLibrary) -> None:
    rank = Rank(library, c_void_p(), 0)

    assert rank.call("barrier") == Status.BAD_ARGUMENT
    assert rank.all_reduce(np.ones(1, np.float32)) == Status.BAD_ARGUMENT
    library.sl_ranks_leave(None)
