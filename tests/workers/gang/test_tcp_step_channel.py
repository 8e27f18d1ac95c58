"""What may come over a TCP connection: frames in crumbs, and bytes of somebody else."""

import socket
from collections.abc import Iterator

import pytest

from shardline_workers.gang.step_channel import ChannelLimits, PeerLostError, StepChannelError
from shardline_workers.gang.tcp_step_channel import TcpStepReceiver, TcpStepSender

LIMITS = ChannelLimits(wait_s=5.0)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A plain end, and one for the channel."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        plain = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    with plain, theirs:
        yield plain, theirs


@pytest.mark.parametrize(
    ("garbage", "length"),
    [(bytes(4), 0), (b"\xff\xff\xff\xff", 2**32 - 1), (b"GET / HTTP/1.1\r\n", int.from_bytes(b"GET ", "big"))],
)
def test_a_length_that_no_frame_has_is_refused_and_stays_so(
    pair: tuple[socket.socket, socket.socket], garbage: bytes, length: int
) -> None:
    stranger, connection = pair
    receiver = TcpStepReceiver(connection, limits=LIMITS)
    stranger.sendall(garbage)

    for _ in range(2):
        with pytest.raises(StepChannelError, match=f"announces a frame of {length} bytes"):
            receiver.receive(5.0)


def test_a_frame_that_comes_in_crumbs_is_waited_for_over_several_limits(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    writer, connection = pair
    receiver = TcpStepReceiver(connection, limits=LIMITS)

    for crumb in (b"\0", b"\0\0\5", b"fra", b"m"):
        writer.sendall(crumb)
        with pytest.raises(TimeoutError):
            receiver.receive(0.02)
    writer.sendall(b"e\0\0\0\1x\0\0")

    assert receiver.receive(5.0) == b"frame"
    assert receiver.receive(5.0) == b"x"


def test_a_writer_that_goes_in_the_middle_of_a_frame_is_lost(pair: tuple[socket.socket, socket.socket]) -> None:
    writer, connection = pair
    receiver = TcpStepReceiver(connection, limits=LIMITS)
    writer.sendall(b"\0\0\0\5fra")
    writer.close()

    with pytest.raises(PeerLostError, match=r"the process at 127\.0\.0\.1:\d+ died or closed the channel"):
        receiver.receive(5.0)


def test_one_connection_carries_a_channel_each_way(pair: tuple[socket.socket, socket.socket]) -> None:
    leader, rank = pair
    steps, answers = TcpStepSender([leader], limits=LIMITS), TcpStepReceiver(leader, limits=LIMITS)
    received, answered = TcpStepReceiver(rank, limits=LIMITS), TcpStepSender([rank], limits=LIMITS)

    steps.send(b"step")
    answered.send(received.receive(5.0) + b" answered")

    assert answers.receive(5.0) == b"step answered"


def test_small_frames_leave_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    _, connection = pair

    TcpStepSender([connection], limits=LIMITS)

    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
