"""Both ends of a gang's steps: frames by a ring on the leader's host, by TCP elsewhere; answers by TCP."""

import dataclasses
import socket
from collections.abc import Sequence

from shardline_workers.gang.assignment import Assignment, RingSeat
from shardline_workers.gang.shared_memory_step_channel import (
    RingShape,
    SharedMemoryStepReceiver,
    SharedMemoryStepSender,
)
from shardline_workers.gang.step_channel import ChannelLimits, StepReceiver, StepSender
from shardline_workers.gang.tcp_step_channel import TcpStepReceiver, TcpStepSender
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.kernels.native_ring_api import MAX_READERS

_WAIT_S = 10.0  # for the other end to take a frame; more than a silence that ends a gang
_LIMITS = ChannelLimits(wait_s=_WAIT_S)


class RankEnd:
    """A rank's."""

    def __init__(self, connection: socket.socket) -> None:
        """Takes over the connection for the steps of one assignment."""
        self._answers = TcpStepSender([connection], limits=_LIMITS)
        self._frames: StepReceiver = TcpStepReceiver(connection, limits=_LIMITS)

    def join(self, assignment: Assignment, library: NativeLibrary | None) -> None:
        """Meets the leader at its ring, where this rank has a place there.

        Raises:
            StepChannelError: it did not come.
        """
        seat = assignment.ring
        if seat is not None:
            assert library is not None, "whoever has a place at a ring has native code"
            limits = ChannelLimits(join_s=assignment.limits.join_s, wait_s=_WAIT_S)
            self._frames = SharedMemoryStepReceiver(
                library, seat.name, seat.reader, shape=RingShape(num_readers=seat.num_readers), limits=limits
            )

    def receive(self, limit_s: float) -> bytes:
        """See `StepReceiver.receive`."""
        return self._frames.receive(limit_s)

    def answer(self, frame: bytes) -> None:
        """See `StepSender.send`."""
        self._answers.send(frame)

    def close(self) -> None:
        """Leaves."""
        self._frames.close()
        self._answers.close()


class LeaderEnd:
    """The leader's. Implements `StepSender`."""

    def __init__(self, ring: StepSender | None, others: StepSender, receivers: Sequence[StepReceiver]) -> None:
        """Takes all parts. See `open_leader_end`."""
        self._senders: list[StepSender] = [others] if ring is None else [ring, others]
        self.receivers = receivers  # of each rank but 0, in their order: its answers

    def send(self, frame: bytes) -> None:
        """See `StepSender.send`."""
        for sender in self._senders:
            sender.send(frame)

    def close(self) -> None:
        """Ends all channels."""
        for sender in self._senders:
            sender.close()
        for receiver in self.receivers:
            receiver.close()


def open_leader_end(
    connections: Sequence[socket.socket],
    seats: Sequence[RingSeat | None],
    library: NativeLibrary | None,
    *,
    join_s: float,
) -> LeaderEnd:
    """Meets the ranks that have a place at the ring.

    Args:
        connections: of each rank but 0, in their order, for steps.
        seats: theirs at the ring.
        library: the native kernels, where there is a ring.
        join_s: how long to wait for them.

    Raises:
        StepChannelError: they did not come.
    """
    ring: StepSender | None = None
    seated = [seat for seat in seats if seat is not None]
    if seated:
        assert library is not None, "there is a ring where there is native code"
        limits = dataclasses.replace(_LIMITS, join_s=join_s)
        ring = SharedMemoryStepSender(library, seated[0].name, shape=RingShape(num_readers=len(seated)), limits=limits)
    by_tcp = [connection for connection, seat in zip(connections, seats, strict=True) if seat is None]
    receivers = [TcpStepReceiver(connection, limits=_LIMITS) for connection in connections]
    return LeaderEnd(ring, TcpStepSender(by_tcp, limits=_LIMITS), receivers)


def ring_seats(hosts: Sequence[str], *, has_native_code: bool, name: str) -> list[RingSeat | None]:
    """The places of all ranks at the leader's ring.

    Args:
        hosts: of each rank, the leader first; equal where ranks can share memory.
        has_native_code: whether the leader has.
        name: of the ring; none had it before.
    """
    readers = [rank for rank, host in enumerate(hosts) if rank > 0 and host == hosts[0]]
    if not has_native_code or not 1 <= len(readers) <= MAX_READERS:
        return [None] * len(hosts)
    return [
        RingSeat(name=name, reader=readers.index(rank), num_readers=len(readers)) if rank in readers else None
        for rank in range(len(hosts))
    ]
