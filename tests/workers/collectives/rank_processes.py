"""Processes that are ranks of a group: real ones, which can be killed and stopped.

A fork server that has imported torch once makes them in milliseconds.
"""

import multiprocessing
import os
import signal
import sys
import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.distributed import FileStore  # type: ignore[attr-defined]

from shardline_workers.collectives.shared_memory_communicator import SharedMemoryCommunicator, SharedMemoryOptions
from shardline_workers.collectives.torch_communicator import TorchCommunicator
from shardline_workers.communicator import Communicator, GroupLimits, GroupPlace
from shardline_workers.kernels.native_library import load_native_library

ANSWER_TIMEOUT_S = 40.0
KINDS = ("shared_memory", "gloo")
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What a rank needs to join."""

    kind: str
    name: str
    place: GroupPlace
    limits: GroupLimits
    folder: Path  # for gloo's store
    slot_bytes: int = 4096


def opened(group: Group) -> Communicator:
    """Joins."""
    if group.kind == "gloo":
        store = FileStore(str(group.folder / group.name), group.place.num_ranks)
        return TorchCommunicator(store, "tp", place=group.place, device=torch.device("cpu"), limits=group.limits)
    return SharedMemoryCommunicator(
        load_native_library(os.environ, print),
        group.name,
        place=group.place,
        limits=group.limits,
        options=SharedMemoryOptions(slot_bytes=group.slot_bytes),
    )


class RankProcess:
    """One process, which calls functions with the communicator that it joined last (None before)."""

    def __init__(self) -> None:
        self._connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, list(sys.path)), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None, "it was started"
        return self._process.pid

    def begin(self, function: Callable[..., Any], *arguments: object) -> None:
        """Lets it call a function of a module, with its communicator first."""
        self._connection.send((function, arguments))

    def answers_within(self, seconds: float) -> bool:
        """Whether the function ends in that time."""
        return self._connection.poll(seconds)

    def answer(self) -> Any:
        """What the function gave; or the exception that it raised, as an object."""
        if not self._connection.poll(ANSWER_TIMEOUT_S):
            raise TimeoutError(f"process {self.pid} gave no answer in {ANSWER_TIMEOUT_S} s")
        return self._connection.recv()

    def signal(self, number: signal.Signals) -> None:
        """As kill does."""
        os.kill(self.pid, number)

    def end(self) -> None:
        """Kills it, stopped or not, and reaps it."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def on_all(processes: Sequence[RankProcess], function: Callable[..., Any], *arguments: object) -> list[Any]:
    """Calls the same on all of them at once.

    Raises:
        whatever the first of them raised.
    """
    for process in processes:
        process.begin(function, *arguments)
    answers = [process.answer() for process in processes]
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


def new_groups(kind: str, num_ranks: int, folder: Path, *, wait_s: float = 30.0, join_s: float = 30.0) -> list[Group]:
    """A group that nobody has joined: what each of its ranks is told."""
    name, limits = uuid.uuid4().hex, GroupLimits(join_s=join_s, wait_s=wait_s)
    places = [GroupPlace(rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    return [Group(kind=kind, name=name, place=place, limits=limits, folder=folder) for place in places]


def join_all(processes: Sequence[RankProcess], groups: Sequence[Group]) -> None:
    """Makes the group of the first processes."""
    for process, group in zip(processes, groups, strict=False):
        process.begin(join, group)
    answers = [process.answer() for process, _ in zip(processes, groups, strict=False)]
    assert answers == [None] * len(groups), answers


def join(_: Communicator | None, group: Group) -> Communicator:
    """Becomes a rank of another group."""
    return opened(group)


def _serve(connection: Connection, path: list[str]) -> None:
    sys.path[:] = path
    torch.set_num_threads(1)
    communicator: Communicator | None = None
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = function(communicator, *arguments)
        except Exception as error:
            error.add_note(traceback.format_exc())
            answer = error
        if function is join and not isinstance(answer, Exception):
            if communicator is not None:
                communicator.close()
            communicator, answer = answer, None
        connection.send(answer)
