"""A rank in a process of its own: one assignment after the other, until the leader dismisses it or is gone.

    assignment ─▶ Prepared   load ─▶ Loaded   build ─▶ Ready   steps …   stop (or release) ─▶ Released

The main thread loads and computes. The conversation's thread shows signs of life, and ends the process when the leader
shows none, whatever the main thread does: a gang without its leader must hold neither memory nor GPUs.
"""

import dataclasses
import os
import queue
import socket
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
from shardline_workers.files.model_source import ModelFiles
from shardline_workers.gang.assignment import Assignment
from shardline_workers.gang.assignment_encoding import decode_assignment, decode_limits, encode_share
from shardline_workers.gang.conversation import Conversation
from shardline_workers.gang.framed_connection import ConnectionLostError, FramedConnection
from shardline_workers.gang.gang_limits import GangLimits
from shardline_workers.gang.group_joining import GroupMeans, join_groups
from shardline_workers.gang.group_plan import Transport
from shardline_workers.gang.loaded_share import share_of_rank
from shardline_workers.gang.step_channel import PeerLateError, PeerLostError, StepChannelError
from shardline_workers.gang.step_ends import RankEnd
from shardline_workers.gang.step_loop import StepLoop
from shardline_workers.gang.torch_store import join_store
from shardline_workers.kernels.native_library import NativeLibrary, load_native_library
from shardline_workers.load_times import LoadTimes
from shardline_workers.memory_budget import read_host_resources
from shardline_workers.rank_loading import load_rank

EXIT_FAILED, EXIT_LEADER_LOST = 1, 3
_DISMISSAL_S = 1.0  # for the main thread to take it, before the process ends anyhow

Locate = Callable[[ModelFiles], ModelFiles]


class _ReleasedError(Exception):
    """The leader wants no more of this assignment."""


class RankService:
    """One rank process's work for one leader."""

    def __init__(
        self,
        talk: FramedConnection,
        open_steps: Callable[[], socket.socket],
        *,
        patience: GangLimits,
        environment: Mapping[str, str],
        locate: Locate,
    ) -> None:
        """Begins to show signs of life.

        Args:
            talk: to the leader.
            open_steps: opens a connection to the leader for the steps of one assignment.
            patience: the leader's.
            environment: says where compiler and cache of native kernels are.
            locate: from a model's files on the leader's host to those on this one.
        """
        self._orders: queue.SimpleQueue[gang_pb2.Order] = queue.SimpleQueue()
        self._open_steps = open_steps
        self._limits = patience
        self._environment = environment
        self._locate = locate
        self._is_dismissed = threading.Event()
        self._conversation = Conversation(
            talk, beat_s=patience.beat_s, silence_s=patience.loading_silence_s, hear=self._hear, lost=self._lose
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
                loop = self._loaded(decode_assignment(message), held)
                self._reply(gang_pb2.Reply(ready=gang_pb2.Ready()))
                self._conversation.silence_s = self._limits.silence_s
                self._run(loop)
        except _ReleasedError:
            pass
        except Exception as error:
            self._reply(_failed(error))
            with suppress(_ReleasedError):
                self._next_order("release")
        self._conversation.silence_s = self._limits.loading_silence_s
        self._reply(gang_pb2.Reply(released=gang_pb2.Released()))

    def _run(self, loop: StepLoop) -> None:
        """A rank that fails in a step is of no more use: its groups are broken."""
        try:
            loop.run()
        except Exception as error:
            if not isinstance(error, CommunicatorError | StepChannelError):
                traceback.print_exc()
            self._fail_for_good(error)

    def _loaded(self, assignment: Assignment, held: ExitStack) -> StepLoop:
        """From an assignment to what runs its steps; what it takes is given back by `held`."""
        config = dataclasses.replace(
            assignment.config, files=self._locate(assignment.config.files), device=own_device(assignment)
        )
        library = self._library(assignment)
        steps = RankEnd(self._open_steps())
        held.callback(steps.close)
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
        steps.join(assignment, library)
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
        self._reply(encode_share(share_of_rank(rank)))
        build = self._next_order("build")
        runner = rank.build(decode_limits(build.build))
        return StepLoop(steps, runner, assignment.position, max_threads=rank.num_threads)

    def _library(self, assignment: Assignment) -> NativeLibrary | None:
        groups = assignment.invitations
        transports = {group.transport for group in (groups.tensor, groups.stage, groups.pipeline)}
        if Transport.SHARED_MEMORY not in transports and assignment.ring is None:
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
            is_another_ranks=isinstance(error, CommunicatorError | PeerLostError | PeerLateError),
        )
    )
