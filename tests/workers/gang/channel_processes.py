"""Processes at the other end of a step channel: real ones, which can be killed and stopped."""

import multiprocessing
import os
import signal
import socket
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from multiprocessing.connection import Connection
from typing import Any

from shardline_workers.gang.shared_memory_step_channel import (
    RingShape,
    SharedMemoryStepReceiver,
    SharedMemoryStepSender,
)
from shardline_workers.gang.step_channel import ChannelLimits, StepChannelError, StepReceiver, StepSender
from shardline_workers.gang.tcp_step_channel import TcpStepReceiver, TcpStepSender
from shardline_workers.kernels.native_library import load_native_library

KINDS = ("shared_memory", "tcp")
ANSWER_TIMEOUT_S = 40.0
LAST_FRAME = b"that is all"
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """What an end needs to know."""

    kind: str
    name: str
    num_readers: int
    wait_s: float
    port: int = 0  # where the writer listens; with shared memory none

    @property
    def limits(self) -> ChannelLimits:
        return ChannelLimits(join_s=30.0, wait_s=self.wait_s)

    @property
    def shape(self) -> RingShape:
        return RingShape(num_readers=self.num_readers, num_slots=8, slot_bytes=4096)


class EndProcess:
    """A process that runs a function with a channel; what the function tells can be read here."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self._connection, theirs = _CONTEXT.Pipe()
        target = (theirs, list(sys.path), function, arguments)
        self._process = _CONTEXT.Process(target=_run, args=target, daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None, "it was started"
        return self._process.pid

    def told(self) -> Any:
        """The next thing that it told; an exception as an object."""
        if not self._connection.poll(ANSWER_TIMEOUT_S):
            raise TimeoutError(f"process {self.pid} told nothing in {ANSWER_TIMEOUT_S} s")
        return self._connection.recv()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self) -> None:
        """Kills it, stopped or not, and reaps it."""
        self._process.kill()
        self._process.join()
        self._connection.close()


@contextmanager
def sender_with(
    kind: str, function: Callable[..., Any], *, num_readers: int = 1, wait_s: float = 30.0, name: str | None = None
) -> Iterator[tuple[StepSender, list[EndProcess]]]:
    """This process writes; each reader is a process that runs the function with its receiver."""
    channel = Channel(kind=kind, name=name or uuid.uuid4().hex, num_readers=num_readers, wait_s=wait_s)
    with socket.create_server(("127.0.0.1", 0)) as server:
        channel = replace(channel, port=server.getsockname()[1])
        readers = [EndProcess(_read, channel, reader, function) for reader in range(num_readers)]
        sender = _opened_sender(channel, server)
    try:
        yield sender, readers
    finally:
        sender.close()
        for reader in readers:
            reader.end()


@contextmanager
def receiver_with(
    kind: str, function: Callable[..., Any], *, wait_s: float = 30.0
) -> Iterator[tuple[StepReceiver, EndProcess]]:
    """This process reads; the writer is a process that runs the function with its sender."""
    channel = Channel(kind=kind, name=uuid.uuid4().hex, num_readers=1, wait_s=wait_s)
    with socket.create_server(("127.0.0.1", 0)) as server:
        channel = replace(channel, port=server.getsockname()[1])
        writer = EndProcess(_write, channel, function)
        receiver = _opened_receiver(channel, 0, server=server)
    try:
        yield receiver, writer
    finally:
        receiver.close()
        writer.end()


def digest_of_all(receiver: StepReceiver, tell: Callable[[object], None]) -> None:
    """Tells number and digest of the frames up to the last."""
    num_frames, digest = 0, sha256()
    while (frame := receiver.receive(ANSWER_TIMEOUT_S)) != LAST_FRAME:
        num_frames += 1
        digest.update(len(frame).to_bytes(4, "big") + frame)
    tell((num_frames, digest.hexdigest()))


def _opened_sender(channel: Channel, server: socket.socket) -> StepSender:
    if channel.kind == "tcp":
        connections = [server.accept()[0] for _ in range(channel.num_readers)]
        return TcpStepSender(connections, limits=channel.limits)
    library = load_native_library(os.environ, print)
    return SharedMemoryStepSender(library, channel.name, shape=channel.shape, limits=channel.limits)


def _opened_receiver(channel: Channel, reader: int, *, server: socket.socket | None) -> StepReceiver:
    if channel.kind == "tcp":
        connection = server.accept()[0] if server else socket.create_connection(("127.0.0.1", channel.port))
        return TcpStepReceiver(connection, limits=channel.limits)
    library = load_native_library(os.environ, print)
    return SharedMemoryStepReceiver(library, channel.name, reader, shape=channel.shape, limits=channel.limits)


def _read(tell: Callable[[object], None], channel: Channel, reader: int, function: Callable[..., None]) -> None:
    function(_opened_receiver(channel, reader, server=None), tell)


def _write(tell: Callable[[object], None], channel: Channel, function: Callable[..., None]) -> None:
    sender: StepSender
    if channel.kind == "tcp":
        connection = socket.create_connection(("127.0.0.1", channel.port))
        sender = TcpStepSender([connection], limits=channel.limits)
    else:
        library = load_native_library(os.environ, print)
        sender = SharedMemoryStepSender(library, channel.name, shape=channel.shape, limits=channel.limits)
    function(sender, tell)


def _run(connection: Connection, path: list[str], function: Callable[..., None], arguments: tuple[object, ...]) -> None:
    sys.path[:] = path
    try:
        function(connection.send, *arguments)
    except (StepChannelError, TimeoutError) as error:
        connection.send(error)
