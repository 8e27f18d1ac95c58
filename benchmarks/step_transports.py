"""Frames of steps and answers between a leader and its ranks: the ring in shared memory and TCP over loopback.

They take turns, in the same processes, each step after a pause in which the ranks fall asleep, as between steps:

- `send_us`: the call in the leader;
- `one_way_us`: from its beginning until a rank has the frame; of all ranks, which see the leader's clock;
- `round_trip_us`: from the beginning of encoding until the leader has decoded what the last rank answered at once.

All of that again while other processes want every core.
"""

import multiprocessing
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.step_examples import quantiles_us, sampled_tokens, step_plans
from benchmarks.surroundings import load_average
from shardline_workers.gang.answer_encoding import decode_answer, encode_answer
from shardline_workers.gang.shared_memory_step_channel import (
    RingShape,
    SharedMemoryStepReceiver,
    SharedMemoryStepSender,
)
from shardline_workers.gang.step_channel import ChannelLimits, StepReceiver, StepSender
from shardline_workers.gang.step_encoding import decode_frame, encode_step
from shardline_workers.gang.tcp_step_channel import TcpStepReceiver, TcpStepSender
from shardline_workers.kernels.native_library import NativeLibrary, load_native_library

TRANSPORTS = ("shared_memory", "tcp")
_LIMITS = ChannelLimits(join_s=120.0, wait_s=60.0)
_RECEIVE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What leader and ranks do together: turns of each transport, some steps each."""

    num_ranks: int
    turns: int
    steps: int  # of a turn
    pause_s: float = 0.001  # before each
    name: str = field(default_factory=lambda: uuid.uuid4().hex)


def exchanged(schedule: Schedule, *, is_loaded: bool) -> dict[str, object]:
    """Figures of one leader and its ranks, each a process of its own."""
    context = multiprocessing.get_context("spawn")
    with socket.create_server(("127.0.0.1", 0)) as server, context.Pool(schedule.num_ranks) as pool:
        port = server.getsockname()[1]
        ranks = pool.starmap_async(
            _run_rank, [(schedule, rank, port) for rank in range(schedule.num_ranks)], chunksize=1
        )
        with _leader_ends(schedule, server) as ends, _busy_cores(are_busy=is_loaded):
            sent = _lead(schedule, ends)
            arrivals = ranks.get(_RECEIVE_S)
            load = load_average()
    return {
        "num_ranks": schedule.num_ranks,
        "is_loaded": is_loaded,
        "load": load,
        **{transport: _of_transport(sent[transport], [of[transport] for of in arrivals]) for transport in TRANSPORTS},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """One step, in the leader; nanoseconds of the clock that all processes share."""

    encoding_ns: int
    sending_ns: int
    sent_ns: int
    answered_ns: int


def _of_transport(sent: Sequence[_Sent], arrivals: Sequence[Sequence[int]]) -> dict[str, object]:
    one_way = [(there - step.sending_ns) / 1e3 for of in arrivals for step, there in zip(sent, of, strict=True)]
    return {
        "send_us": quantiles_us([(step.sent_ns - step.sending_ns) / 1e3 for step in sent]),
        "one_way_us": quantiles_us(one_way),
        "round_trip_us": quantiles_us([(step.answered_ns - step.encoding_ns) / 1e3 for step in sent]),
        "num_steps": len(sent),
    }


def _lead(schedule: Schedule, ends: dict[str, tuple[StepSender, StepReceiver]]) -> dict[str, list[_Sent]]:
    plan = step_plans()["32 decodes"]
    sent: dict[str, list[_Sent]] = {transport: [] for transport in TRANSPORTS}
    for transport in _turns(schedule):
        sender, receiver = ends[transport]
        time.sleep(schedule.pause_s)
        encoding = time.monotonic_ns()
        frame = encode_step((plan,), number=1, num_threads=1)
        sending = time.monotonic_ns()
        sender.send(frame)
        done = time.monotonic_ns()
        decode_answer(receiver.receive(_RECEIVE_S))
        answered = time.monotonic_ns()
        sent[transport].append(_Sent(encoding_ns=encoding, sending_ns=sending, sent_ns=done, answered_ns=answered))
    return sent


def _run_rank(schedule: Schedule, rank: int, port: int) -> dict[str, list[int]]:
    """Instants at which frames were here, by transport. The last rank answers."""
    arrivals: dict[str, list[int]] = {transport: [] for transport in TRANSPORTS}
    answer = sampled_tokens(32)
    with _rank_ends(schedule, rank, port) as ends:
        for transport in _turns(schedule):
            receiver, sender = ends[transport]
            frame = receiver.receive(_RECEIVE_S)
            arrivals[transport].append(time.monotonic_ns())
            decode_frame(frame, group=0)
            if sender is not None:
                sender.send(encode_answer(answer))
    return arrivals


def _turns(schedule: Schedule) -> Iterator[str]:
    """The transport of each step: A B A B …"""
    for _ in range(schedule.turns):
        for transport in TRANSPORTS:
            for _ in range(schedule.steps):
                yield transport


@contextmanager
def _leader_ends(schedule: Schedule, server: socket.socket) -> Iterator[dict[str, tuple[StepSender, StepReceiver]]]:
    library, last = _library(), schedule.num_ranks - 1
    connections: dict[int, socket.socket] = {}
    for _ in range(schedule.num_ranks):
        connection, _address = server.accept()
        connections[connection.recv(1)[0]] = connection
    steps = SharedMemoryStepSender(
        library, f"{schedule.name}-steps", shape=RingShape(num_readers=schedule.num_ranks), limits=_LIMITS
    )
    answers = SharedMemoryStepReceiver(
        library, f"{schedule.name}-answers", 0, shape=RingShape(num_readers=1), limits=_LIMITS
    )
    over_tcp = TcpStepSender(list(connections.values()), limits=_LIMITS)
    yield {"shared_memory": (steps, answers), "tcp": (over_tcp, TcpStepReceiver(connections[last], limits=_LIMITS))}
    for end in (steps, answers, over_tcp):
        end.close()


@contextmanager
def _rank_ends(schedule: Schedule, rank: int, port: int) -> Iterator[dict[str, tuple[StepReceiver, StepSender | None]]]:
    library, answers = _library(), rank == schedule.num_ranks - 1
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(bytes([rank]))
    steps = SharedMemoryStepReceiver(
        library, f"{schedule.name}-steps", rank, shape=RingShape(num_readers=schedule.num_ranks), limits=_LIMITS
    )
    answering = (
        SharedMemoryStepSender(library, f"{schedule.name}-answers", shape=RingShape(num_readers=1), limits=_LIMITS)
        if answers
        else None
    )
    over_tcp = TcpStepReceiver(connection, limits=_LIMITS)
    answering_tcp = TcpStepSender([connection], limits=_LIMITS) if answers else None
    yield {"shared_memory": (steps, answering), "tcp": (over_tcp, answering_tcp)}
    for end in (steps, answering, over_tcp):
        if end is not None:
            end.close()


def _library() -> NativeLibrary:
    return load_native_library(os.environ, lambda text: print(text, file=sys.stderr))


@contextmanager
def _busy_cores(*, are_busy: bool) -> Iterator[None]:
    """A process on each core that always wants it, where there is to be load."""
    count = len(os.sched_getaffinity(0)) if are_busy else 0
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()
