"""A ring's ends, here as threads of one process: content, pieces, room, limits, refusals."""

import ctypes
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ctypes import c_void_p

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline_workers.kernels.native_api import Status
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.kernels.native_ring_api import MAX_READERS, WRITER, RingOptions, RingStatus

MS = 1_000_000
LONG_NS, SHORT_NS = 20_000 * MS, 100 * MS
NUM_SLOTS, SLOT_BYTES = 4, 128
PROCESS_AT = 64 + 128  # of the writer: see ring_memory.h


class End:
    """One end's calls."""

    def __init__(self, library: NativeLibrary, handle: c_void_p) -> None:
        self.library, self.handle = library, handle

    def write(self, frame: bytes) -> int:
        status: int = self.library.sl_ring_write(self.handle, frame, len(frame))
        return status

    def read(self, room: int = 4096, limit_ns: int = LONG_NS) -> bytes | int:
        """The frame, or the status, or the size of one that is larger."""
        buffer = ctypes.create_string_buffer(room)
        size: int = self.library.sl_ring_read(self.handle, buffer, room, limit_ns)
        return buffer.raw[:size] if 0 <= size <= room else size

    def leave(self) -> None:
        self.library.sl_ring_leave(self.handle)
        self.handle = c_void_p()

    def error(self) -> str:
        return bytes(self.library.sl_last_error()).decode()


def options(place: int, num_readers: int, **changed: int) -> RingOptions:
    plain = {"num_slots": NUM_SLOTS, "slot_bytes": SLOT_BYTES, "spin_ns": 0, "join_ns": LONG_NS, "wait_ns": LONG_NS}
    return RingOptions(place=place, num_readers=num_readers, **{**plain, **changed})


def join(library: NativeLibrary, file: int, wanted: RingOptions) -> tuple[int, c_void_p, str]:
    handle = c_void_p()
    status = library.sl_ring_join(file, ctypes.byref(wanted), ctypes.byref(handle))
    return status, handle, (library.sl_last_error() or b"").decode()


@contextmanager
def shared_file(library: NativeLibrary, num_readers: int) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        os.ftruncate(file.fileno(), library.sl_ring_bytes(num_readers, NUM_SLOTS, SLOT_BYTES))
        yield file.fileno()


@contextmanager
def ring(library: NativeLibrary, num_readers: int, **changed: int) -> Iterator[list[End]]:
    """The writer's end, then the readers'."""
    places = range(1 + num_readers)
    with shared_file(library, num_readers) as file, ThreadPoolExecutor(len(places)) as threads:
        joined = list(threads.map(lambda place: join(library, file, options(place, num_readers, **changed)), places))
    assert [status for status, _, _ in joined] == [Status.OK] * len(places), joined
    ends = [End(library, handle) for _, handle, _ in joined]
    try:
        yield ends
    finally:
        for end in ends:
            end.leave()


def written_and_read(ends: Sequence[End], frames: Sequence[bytes]) -> list[list[bytes | int]]:
    """What each reader got of the frames, all ends at once."""
    writer, *readers = ends
    with ThreadPoolExecutor(len(ends)) as threads:
        reads = [threads.submit(lambda end: [end.read() for _ in frames], reader) for reader in readers]
        assert [writer.write(frame) for frame in frames] == [Status.OK] * len(frames)
        return [read.result() for read in reads]


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([1, 2, 127, 128, 129, 256, 1000, 4096]), min_size=1, max_size=20),
    num_readers=st.sampled_from([1, 2, MAX_READERS]),
)
def test_every_reader_gets_every_frame_whole_and_in_order(
    library: NativeLibrary, sizes: list[int], num_readers: int
) -> None:
    frames = [bytes((number + i) % 251 for i in range(size)) for number, size in enumerate(sizes)]

    with ring(library, num_readers) as ends:
        assert written_and_read(ends, frames) == [frames] * num_readers


@pytest.mark.parametrize("spin_ns", [0, 20_000])
def test_thousands_of_frames_at_full_speed_keep_their_content(library: NativeLibrary, spin_ns: int) -> None:
    frames = [number.to_bytes(4, "little") * (1 + number % 60) for number in range(4000)]

    with ring(library, 2, spin_ns=spin_ns) as ends:
        assert written_and_read(ends, frames) == [frames, frames]


def test_the_writer_runs_ahead_by_as_many_pieces_as_there_are_slots(library: NativeLibrary) -> None:
    with ring(library, 1, wait_ns=SHORT_NS) as (writer, reader):
        statuses = [writer.write(b"%d" % number) for number in range(NUM_SLOTS)]

        assert statuses == [Status.OK] * NUM_SLOTS
        assert reader.read() == b"0"
        assert writer.write(b"more") == Status.OK
        assert [reader.read() for _ in range(NUM_SLOTS)] == [b"1", b"2", b"3", b"more"]


def test_a_reader_that_takes_nothing_is_late_and_stays_so(library: NativeLibrary) -> None:
    with ring(library, 2, wait_ns=SHORT_NS) as (writer, reader, _):
        for _ in range(NUM_SLOTS):
            writer.write(b"frame")
            reader.read()
        began = time.monotonic()

        assert writer.write(b"one too many") == RingStatus.LATE

        assert time.monotonic() - began >= SHORT_NS / 1e9
        assert writer.error() == (f"reader 2 (process {os.getpid()}) did nothing for longer than the limit of 100 ms")
        assert writer.write(b"again") == RingStatus.LATE


def test_a_slow_reader_makes_the_writer_wait_and_nothing_is_lost(library: NativeLibrary) -> None:
    frames = [b"%d" % number for number in range(3 * NUM_SLOTS)]

    def read_slowly(end: End) -> list[bytes | int]:
        read = []
        for _ in frames:
            time.sleep(0.01)
            read.append(end.read())
        return read

    with ring(library, 1) as (writer, reader), ThreadPoolExecutor(1) as threads:
        read = threads.submit(read_slowly, reader)
        assert [writer.write(frame) for frame in frames] == [Status.OK] * len(frames)
        assert read.result() == frames


def test_a_read_that_finds_nothing_breaks_nothing(library: NativeLibrary) -> None:
    with ring(library, 1) as (writer, reader):
        assert reader.read(limit_ns=0) == RingStatus.EMPTY
        assert reader.read(limit_ns=5 * MS) == RingStatus.EMPTY

        writer.write(b"late, but here")

        assert reader.read() == b"late, but here"


def test_a_frame_without_room_is_told_and_stays(library: NativeLibrary) -> None:
    with ring(library, 1) as (writer, reader):
        writer.write(b"x" * 300)

        assert reader.read(room=299) == 300
        assert reader.read(room=300) == b"x" * 300


def test_what_was_written_before_the_writer_left_is_read_then_the_loss_is_told(library: NativeLibrary) -> None:
    with ring(library, 1) as (writer, reader):
        writer.write(b"last words")
        writer.leave()

        assert reader.read() == b"last words"
        assert reader.read() == RingStatus.LOST
        assert reader.error() == f"writer 0 (process {os.getpid()}) died or left the ring"


def test_a_reader_that_left_fails_the_next_write_though_there_is_room(library: NativeLibrary) -> None:
    with ring(library, 2) as (writer, _, reader):
        reader.leave()

        assert writer.write(b"frame") == RingStatus.LOST
        assert writer.error() == f"reader 2 (process {os.getpid()}) died or left the ring"


def test_an_end_that_never_comes_is_late(library: NativeLibrary) -> None:
    with shared_file(library, 1) as file:
        status, _, text = join(library, file, options(WRITER, 1, join_ns=SHORT_NS))

    assert (status, text) == (RingStatus.LATE, "reader 1 has not joined within the limit")


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"place": 2}, "place is 2; it must be 0 … 1"),
        ({"num_readers": 8}, "num_readers is 8; it must be 1 … 7"),
        ({"num_slots": 3}, "num_slots is 3; it must be a power of two, 2 … 65536"),
        ({"slot_bytes": 100}, "slot_bytes is 100; it must be a multiple of 64, up to 67108864"),
        ({"wait_ns": 0}, "limits must be positive"),
        ({"num_slots": 8}, "the shared file has"),
    ],
)
def test_options_that_make_no_sense_are_refused(library: NativeLibrary, changed: dict[str, int], text: str) -> None:
    wanted = options(WRITER, 1)
    for name, value in changed.items():
        setattr(wanted, name, value)

    with shared_file(library, 1) as file:
        status, _, told = join(library, file, wanted)

    assert status == Status.BAD_ARGUMENT
    assert text in told


@pytest.mark.timeout(60)
def test_ends_that_do_not_agree_and_places_taken_twice_are_refused(library: NativeLibrary) -> None:
    with shared_file(library, 2) as file, ThreadPoolExecutor(1) as threads:
        first = threads.submit(join, library, file, options(WRITER, 1, join_ns=LONG_NS))
        while os.pread(file, 4, PROCESS_AT) == bytes(4):
            time.sleep(0.001)
        told = join(library, file, options(1, 2))
        again = join(library, file, options(WRITER, 1))
        reader = join(library, file, options(1, 1))

    assert told[0] == Status.BAD_ARGUMENT
    assert "another end joined with 1, 4 and 128" in told[2]
    assert (again[0], again[2]) == (Status.BAD_ARGUMENT, f"place 0 is taken: process {os.getpid()} has joined there")
    assert (first.result()[0], reader[0]) == (Status.OK, Status.OK)
    for _, handle, _ in (first.result(), reader):
        library.sl_ring_leave(handle)


def test_calls_of_the_other_end_are_refused(library: NativeLibrary) -> None:
    with ring(library, 1) as (writer, reader):
        assert (reader.write(b"frame"), reader.error()) == (Status.BAD_ARGUMENT, "only the writer writes")
        assert (writer.read(), writer.error()) == (Status.BAD_ARGUMENT, "the writer does not read")
        assert writer.write(b"") == Status.BAD_ARGUMENT
