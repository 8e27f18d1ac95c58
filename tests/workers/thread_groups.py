"""A group of ranks as threads of this process."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from shardline_workers.collectives.shared_memory_communicator import SharedMemoryCommunicator, SharedMemoryOptions
from shardline_workers.communicator import GroupLimits, GroupPlace
from shardline_workers.kernels.native_library import NativeLibrary

LIMITS = GroupLimits(join_s=30.0, wait_s=30.0)
OPTIONS = SharedMemoryOptions(slot_bytes=16 * 1024, spin_s=0.0)  # ranks are more than cores here

R = TypeVar("R")


class ThreadGroup:
    """The ranks of one group, each with a thread of its own."""

    def __init__(self, ranks: Sequence[SharedMemoryCommunicator], threads: ThreadPoolExecutor) -> None:
        self.ranks = ranks
        self._threads = threads

    def on_all(self, play: Callable[[SharedMemoryCommunicator], R]) -> list[R]:
        """What all ranks give, in their order; the first failure is raised when all have come to an end."""
        futures = [self._threads.submit(play, rank) for rank in self.ranks]
        for future in futures:
            future.exception()
        return [future.result() for future in futures]


@contextmanager
def thread_group(library: NativeLibrary, num_ranks: int, *, limits: GroupLimits = LIMITS) -> Iterator[ThreadGroup]:
    """While it lasts, all have joined."""
    name = f"threads-{uuid.uuid4().hex}"
    with ThreadPoolExecutor(num_ranks) as threads:
        ranks = list(
            threads.map(
                lambda rank: SharedMemoryCommunicator(
                    library,
                    name,
                    place=GroupPlace(rank=rank, num_ranks=num_ranks),
                    limits=limits,
                    options=OPTIONS,
                ),
                range(num_ranks),
            )
        )
        try:
            yield ThreadGroup(ranks, threads)
        finally:
            for rank in ranks:
                rank.close()
