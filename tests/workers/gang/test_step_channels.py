"""Both kinds of step channel between real processes: content, speed, slow readers, either end dead or stopped."""

import random
import signal
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import pytest

from shardline_workers.collectives.shared_segment import SHARED_MEMORY
from shardline_workers.gang.step_channel import PeerLateError, PeerLostError, StepChannelError, StepReceiver, StepSender
from tests.workers.gang.channel_processes import KINDS, LAST_FRAME, digest_of_all, receiver_with, sender_with

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("native_library")]

SHORT_S = 0.5
SLACK_S = 10.0  # of a busy machine; far below the long limits
Tell = Callable[[object], None]


def digest(frames: list[bytes]) -> tuple[int, str]:
    return len(frames), sha256(b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)).hexdigest()


def frames_of(sizes: list[int]) -> list[bytes]:
    noise = random.Random(3)
    return [noise.randbytes(size) for size in sizes]


def read_slowly(receiver: StepReceiver, tell: Tell) -> None:
    frames: list[bytes] = []
    while not frames or frames[-1] != LAST_FRAME:
        time.sleep(0.005)
        frames.append(receiver.receive(SLACK_S))
    tell(digest(frames[:-1]))


def read_first_only(receiver: StepReceiver, tell: Tell) -> None:
    tell(receiver.receive(SLACK_S))
    time.sleep(60)


def close_after_first(receiver: StepReceiver, tell: Tell) -> None:
    receiver.receive(SLACK_S)
    receiver.close()
    tell("closed")


def write_three(sender: StepSender, tell: Tell) -> None:
    for frame in (b"1", b"2", b"3"):
        sender.send(frame)
    tell("written")
    time.sleep(60)


def write_three_and_close(sender: StepSender, tell: Tell) -> None:
    for frame in (b"1", b"2", b"3"):
        sender.send(frame)
    sender.close()
    tell("closed")


def write_for_ever(sender: StepSender, tell: Tell) -> None:
    while True:
        sender.send(b"frame")


@pytest.mark.parametrize("kind", KINDS)
def test_many_frames_at_speed_arrive_at_two_readers_as_they_were(kind: str) -> None:
    noise = random.Random(7)
    frames = frames_of([noise.choice((1, 40, 230, 230, 230, 4096, 9000)) for _ in range(3000)])

    with sender_with(kind, digest_of_all, num_readers=2) as (sender, readers):
        for frame in (*frames, LAST_FRAME):
            sender.send(frame)

        assert [reader.told() for reader in readers] == [digest(frames)] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_much_larger_than_the_ring_goes_in_pieces(kind: str) -> None:
    frames = frames_of([5_000_000, 3, 700_001])

    with sender_with(kind, digest_of_all, num_readers=2) as (sender, readers):
        for frame in (*frames, LAST_FRAME):
            sender.send(frame)

        assert [reader.told() for reader in readers] == [digest(frames)] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_reader_loses_nothing(kind: str) -> None:
    frames = frames_of([6000] * 40)

    with sender_with(kind, read_slowly) as (sender, (reader,)):
        for frame in (*frames, LAST_FRAME):
            sender.send(frame)

        assert reader.told() == digest(frames)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_reader_is_told_at_the_next_frame(kind: str) -> None:
    with sender_with(kind, read_first_only, num_readers=2) as (sender, readers):
        sender.send(b"frame")
        assert [reader.told() for reader in readers] == [b"frame"] * 2

        readers[1].signal(signal.SIGKILL)
        readers[1].end()

        with pytest.raises(PeerLostError, match="died or"):
            sender.send(b"frame")
        with pytest.raises(PeerLostError):
            sender.send(b"frame")


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_that_is_killed_while_the_writer_waits_for_it_is_told(kind: str) -> None:
    with sender_with(kind, read_first_only) as (sender, (reader,)):
        sender.send(b"frame")
        reader.told()
        reader.signal(signal.SIGSTOP)
        began = time.monotonic()

        def kill_soon() -> None:
            time.sleep(SHORT_S)
            reader.signal(signal.SIGKILL)

        with ThreadPoolExecutor(1) as threads, pytest.raises(PeerLostError):
            threads.submit(kill_soon)
            sender.send(bytes(40_000_000))

    assert time.monotonic() - began < SHORT_S + SLACK_S


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_reader_is_late_once_there_is_no_more_room(kind: str) -> None:
    with sender_with(kind, read_first_only, wait_s=SHORT_S) as (sender, (reader,)):
        sender.send(b"frame")
        reader.told()
        reader.signal(signal.SIGSTOP)
        began = time.monotonic()

        with pytest.raises(PeerLateError, match="longer than the limit of 500 ms"):
            sender.send(bytes(40_000_000))

        assert SHORT_S <= time.monotonic() - began < SHORT_S + SLACK_S


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_that_closes_fails_the_writer(kind: str) -> None:
    with sender_with(kind, close_after_first) as (sender, (reader,)):
        sender.send(b"frame")
        assert reader.told() == "closed"

        with pytest.raises(PeerLostError):
            sender.send(b"frame")


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_writer_sent_before_it_was_killed_can_be_read(kind: str) -> None:
    with receiver_with(kind, write_three) as (receiver, writer):
        assert writer.told() == "written"
        writer.signal(signal.SIGKILL)
        writer.end()

        assert [receiver.receive(SLACK_S) for _ in range(3)] == [b"1", b"2", b"3"]
        with pytest.raises(PeerLostError, match="died or"):
            receiver.receive(SLACK_S)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_writer_sent_before_it_closed_can_be_read(kind: str) -> None:
    with receiver_with(kind, write_three_and_close) as (receiver, writer):
        assert writer.told() == "closed"

        assert [receiver.receive(SLACK_S) for _ in range(3)] == [b"1", b"2", b"3"]
        with pytest.raises(PeerLostError):
            receiver.receive(SLACK_S)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_notices_within_seconds_that_the_writer_was_killed(kind: str) -> None:
    with receiver_with(kind, write_for_ever) as (receiver, writer):
        receiver.receive(SLACK_S)
        began = time.monotonic()
        writer.signal(signal.SIGKILL)

        with pytest.raises(PeerLostError):
            while True:
                receiver.receive(60.0)

    assert time.monotonic() - began < SLACK_S


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_writer_breaks_nothing(kind: str) -> None:
    with receiver_with(kind, write_for_ever) as (receiver, writer):
        receiver.receive(SLACK_S)
        writer.signal(signal.SIGSTOP)

        with pytest.raises(TimeoutError):
            while True:
                receiver.receive(SHORT_S)
        writer.signal(signal.SIGCONT)

        assert receiver.receive(SLACK_S) == b"frame"


@pytest.mark.parametrize("kind", KINDS)
def test_waiting_costs_no_processor_time(kind: str) -> None:
    with receiver_with(kind, write_three) as (receiver, writer):
        writer.told()
        for _ in range(3):
            receiver.receive(SLACK_S)
        began_s = time.thread_time()

        with pytest.raises(TimeoutError):
            receiver.receive(1.2)

    assert time.thread_time() - began_s < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_end_says_so_and_closes_again(kind: str) -> None:
    with receiver_with(kind, write_three) as (receiver, _):
        receiver.close()
        receiver.close()

        with pytest.raises(StepChannelError, match="the channel was closed"):
            receiver.receive(SHORT_S)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_frame_is_refused(kind: str) -> None:
    with sender_with(kind, read_first_only) as (sender, _), pytest.raises(ValueError, match="a frame has 0 bytes"):
        sender.send(b"")


def test_nothing_is_left_in_shared_memory_once_all_have_joined() -> None:
    name = uuid.uuid4().hex

    with sender_with("shared_memory", read_first_only, name=name) as (sender, (reader,)):
        sender.send(b"frame")
        reader.told()
        reader.signal(signal.SIGKILL)

        assert not list(SHARED_MEMORY.glob(f"*{name}*"))
