"""A rank in a process of its own: one assignment after the other, until the leader dismisses it or is gone.

    assignment ─▶ Prepared   load ─▶ Loaded   build ─▶ Ready   steps …   stop (or release) ─▶ Released

The main thread loads and computes. The conversation's thread shows signs of life, and ends the process when the leader
shows none, whatever the main thread does: a gang without its leader must hold neither memory nor GPUs.
"""

import dataclasses
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import NoReturn

import torch
from torch.distributed.distributed_c10d import Store

from shardline_protos import gang_pb2
from shardline_workers.collectives.errors import CommunicatorError
from shardline_workers.engine_limits import decide_limits
from shardline_workers.files.model_source import ModelFiles
from shardline_workers.gang.answer_encoding import encode_answer
from shardline_workers.gang.assignment import Assignment, LoadedShare
from shardline_workers.gang.assignment_encoding import decode_assignment, decode_limits, encode_share
from shardline_workers.gang.conversation import Conversation
from shardline_workers.gang.framed_connection import ConnectionLostError, FramedConnection
from shardline_workers.gang.gang_limits import GangLimits
from shardline_workers.gang.group_joining import GroupMeans, join_groups
from shardline_workers.gang.group_plan import Transport
from shardline_workers.gang.step_channel import PeerLostError
from shardline_workers.gang.step_encoding import decode_frame
from shardline_workers.gang.step_frames import Answer, ProbedAnswer, ProbeFrame, SampledAnswer, StepFrame, StopFrame
from shardline_workers.gang.stream_channel import StreamReceiver
from shardline_workers.gang.torch_store import join_store
from shardline_workers.kernels.native_library import NativeLibrary, load_native_library
from shardline_workers.load_times import LoadTimes
from shardline_workers.memory_budget import read_host_resources
from shardline_workers.rank_loading import LoadedRank, load_rank
from shardline_workers.ranks.model_runner import ModelRunner, ProbeFailedError

EXIT_FAILED, EXIT_LEADER_LOST = 1, 3
_IDLE_S = 60.0  # between two looks for the next step; nothing depends on it
_DISMISSAL_S = 1.0  # for the main thread to take it, before the process ends anyhow

Locate = Callable[[ModelFiles], ModelFiles]


class _ReleasedError(Exception):
    """The leader wants no more of this assignment."""


class RankService:
    """One rank process's work for one leader."""

    def __init__(
        self,
        talk: FramedConnection,
        steps: FramedConnection,
        *,
        limits: GangLimits,
        environment: Mapping[str, str],
        locate: Locate,
    ) -> None:
        """Begins to show signs of life.

        Args:
            talk: to the leader.
            steps: to the leader.
            limits: how patient to be.
            environment: says where compiler and cache of native kernels are.
            locate: from a model's files on the leader's host to those on this one.
        """
        self._orders: queue.SimpleQueue[gang_pb2.Order] = queue.SimpleQueue()
        self._steps = steps
        self._limits = limits
        self._environment = environment
        self._locate = locate
        self._is_dismissed = threading.Event()
        self._conversation = Conversation(
            talk, beat_s=limits.beat_s, silence_s=limits.loading_silence_s, hear=self._hear, lost=self._lose
        )
        self._conversation.start()

    def run(self) -> None:
        """Serves assignments; returns when dismissed."""
        while True:
            order = self._orders.get()
            kind = order.WhichOneof("kind")
            if kind == "assignment":
                self._serve(order.assignment)
            elif kind == "release":
                self._reply(gang_pb2.Reply(released=gang_pb2.Released()))
            elif kind == "dismissal":
                self._is_dismissed.set()
                self._conversation.close()
                return

    def _serve(self, message: gang_pb2.Assignment) -> None:
        try:
            with ExitStack() as held:
                runner, assignment, max_threads = self._loaded(decode_assignment(message), held)
                self._reply(gang_pb2.Reply(ready=gang_pb2.Ready()))
                self._conversation.silence_s = self._limits.silence_s
                _Steps(self._steps, runner, assignment, max_threads=max_threads, fail=self._fail_for_good).run()
        except _ReleasedError:
            pass
        except Exception as error:
            self._reply(_failed(error))
            with suppress(_ReleasedError):
                self._next_order("release")
        self._conversation.silence_s = self._limits.loading_silence_s
        self._reply(gang_pb2.Reply(released=gang_pb2.Released()))

    def _loaded(self, assignment: Assignment, held: ExitStack) -> tuple[ModelRunner, Assignment, int]:
        """From an assignment to what runs its steps; what it takes is given back by `held`."""
        config = dataclasses.replace(
            assignment.config, files=self._locate(assignment.config.files), device=own_device(assignment)
        )
        library = self._library(assignment)
        self._reply(gang_pb2.Reply(prepared=gang_pb2.Prepared()))
        self._next_order("load")
        host = read_host_resources()
        means = GroupMeans(
            device=torch.device(config.device),
            library=library,
            store=lambda: _store(assignment),
            num_cores=host.num_cores // config.replicas_on_host,
            ranks_on_host=config.ranks_on_host,
            limits=assignment.limits,
        )
        groups = join_groups(assignment.invitations, means)
        held.callback(groups.close)
        rank = load_rank(
            config,
            assignment.position,
            groups,
            host=host,
            environment=self._environment,
            report=self._report,
            times=LoadTimes(),
        )
        held.callback(rank.close)
        self._reply(encode_share(loaded_share(rank, rank_name="")))
        build = self._next_order("build")
        return rank.build(decode_limits(build.build)), assignment, rank.num_threads

    def _library(self, assignment: Assignment) -> NativeLibrary | None:
        groups = assignment.invitations
        transports = {group.transport for group in (groups.tensor, groups.stage, groups.pipeline)}
        if Transport.SHARED_MEMORY not in transports:
            return None
        return load_native_library(self._environment, self._report)

    def _next_order(self, wanted: str) -> gang_pb2.Order:
        order = self._orders.get()
        kind = order.WhichOneof("kind")
        if kind == wanted:
            return order
        if kind == "dismissal":
            self._orders.put(order)  # `run` takes it
        elif kind != "release":
            self._fail_for_good(RuntimeError(f"the leader said {kind!r} where it should have said {wanted!r}"))
        raise _ReleasedError

    def _reply(self, reply: gang_pb2.Reply) -> None:
        with suppress(ConnectionLostError):  # the conversation's thread tells, and ends this process
            self._conversation.say(reply.SerializeToString())

    def _report(self, line: str) -> None:
        self._reply(gang_pb2.Reply(line=line))

    def _fail_for_good(self, error: Exception) -> NoReturn:
        """A rank that failed in a step is of no more use: its groups are broken."""
        self._reply(_failed(error))
        sys.stderr.flush()
        os._exit(EXIT_FAILED)

    def _hear(self, message: bytes) -> None:
        order = gang_pb2.Order.FromString(message)
        self._orders.put(order)
        if order.WhichOneof("kind") == "dismissal" and not self._is_dismissed.wait(_DISMISSAL_S):
            os._exit(0)

    def _lose(self, why: str) -> NoReturn:
        print(f"rank process {os.getpid()} ends, since its leader is lost: {why}", file=sys.stderr, flush=True)
        os._exit(EXIT_LEADER_LOST)


class _Steps:
    """The loop of one assignment."""

    def __init__(
        self,
        connection: FramedConnection,
        runner: ModelRunner,
        assignment: Assignment,
        *,
        max_threads: int,
        fail: Callable[[Exception], NoReturn],
    ) -> None:
        self._receiver = StreamReceiver(connection)
        self._connection = connection
        self._runner = runner
        self._position = assignment.position
        self._max_threads = max_threads
        self._fail = fail

    def run(self) -> None:
        """Computes until told to stop."""
        try:
            while not isinstance(frame := self._next_frame(), StopFrame):
                answer = self._step(frame) if isinstance(frame, StepFrame) else self._probe(frame)
                if self._position.chooses:
                    self._connection.send(encode_answer(answer))
        except Exception as error:
            if not isinstance(error, CommunicatorError | PeerLostError | ConnectionLostError):
                traceback.print_exc()
            self._fail(error)

    def _next_frame(self) -> StepFrame | ProbeFrame | StopFrame:
        while True:
            with suppress(TimeoutError):
                return decode_frame(self._receiver.receive(_IDLE_S), group=self._position.group)

    def _step(self, frame: StepFrame) -> Answer:
        sampled, times = self._runner.execute(frame.plan, num_threads=self._num_threads(frame.num_threads))
        loads = self._runner.expert_loads()
        return SampledAnswer(number=frame.number, sampled=sampled, wall_s=times.wall_s, expert_loads=loads)

    def _probe(self, frame: ProbeFrame) -> Answer:
        try:
            times = self._runner.probe(frame.num_tokens, num_threads=self._num_threads(frame.num_threads))
        except ProbeFailedError as error:
            return ProbedAnswer(number=frame.number, wall_s=0.0, nonsense=str(error))
        return ProbedAnswer(number=frame.number, wall_s=times.wall_s)

    def _num_threads(self, asked: int) -> int:
        """The leader chooses between one and all; how many all are is each rank's own."""
        return 1 if asked == 1 else self._max_threads


def loaded_share(rank: LoadedRank, *, rank_name: str) -> LoadedShare:
    """What a rank tells once it has its weights.

    Raises:
        ValueError: there is no room for its KV cache; the text says what would help.
    """
    limits = decide_limits(
        rank.config,
        rank.shape,
        block_size=rank.block_size,
        block_bytes=rank.block_bytes,
        host=read_host_resources(),
        used_bytes=rank.used_bytes,
    )
    return LoadedShare(
        rank_name=rank_name,
        position=rank.share.position,
        num_blocks=limits.num_blocks,
        block_size=rank.block_size,
        block_bytes=rank.block_bytes,
        weights_bytes=rank.weights.num_bytes(),
        num_threads=rank.num_threads,
        numerics=rank.kernels.numerics,
    )


def own_device(assignment: Assignment) -> str:
    """A GPU of its own for each rank of a host, where they see several; else what the configuration says."""
    device = torch.device(assignment.config.device)
    if device.type != "cuda" or device.index is not None or torch.cuda.device_count() < 2:
        return assignment.config.device
    return f"cuda:{assignment.device_index}"


def _store(assignment: Assignment) -> Store:
    assert assignment.store is not None, "the leader hosts a store where a group is torch's"
    return join_store(assignment.store, limit_s=assignment.limits.join_s)


def _failed(error: Exception) -> gang_pb2.Reply:
    is_refusal = isinstance(error, ValueError)
    text = str(error) if is_refusal or isinstance(error, CommunicatorError) else f"{type(error).__name__}: {error}"
    return gang_pb2.Reply(
        failed=gang_pb2.Failed(
            text=text,
            is_refusal=is_refusal,
            is_another_ranks=isinstance(error, CommunicatorError | PeerLostError | ConnectionLostError),
        )
    )
