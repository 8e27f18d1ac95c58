"""What only shared memory has: chunks, spinning, bounds, and calls from native code."""

import os
import uuid
from pathlib import Path

import pytest
import torch

from shardline_workers.collectives.errors import CommunicatorError
from shardline_workers.collectives.shared_memory_communicator import SharedMemoryCommunicator, SharedMemoryOptions
from shardline_workers.communicator import GroupLimits, GroupPlace
from shardline_workers.kernels.native_library import NativeLibrary, load_native_library
from shardline_workers.kernels.native_ranks_api import Number
from tests.workers.collectives.rank_processes import RankProcess, join_all, new_groups, on_all


def test_ranks_spin_only_where_each_has_a_core() -> None:
    assert SharedMemoryOptions.for_cores(2, 2).spin_s == 50e-6
    assert SharedMemoryOptions.for_cores(3, 2).spin_s == 0


@pytest.mark.parametrize(
    ("num_ranks", "slot_bytes", "text"),
    [
        (1, 1024, "shared memory takes 2 to 8 ranks, not 1"),
        (9, 1024, "shared memory takes 2 to 8 ranks, not 9: exchange by gloo"),
        (2, 1000, "slot_bytes is 1000; it must be a multiple of 256, 1024 … 67108864"),
    ],
)
def test_a_group_that_cannot_be_is_refused_before_anybody_waits(
    native_library: NativeLibrary, num_ranks: int, slot_bytes: int, text: str
) -> None:
    with pytest.raises(CommunicatorError, match=text):
        SharedMemoryCommunicator(
            native_library,
            uuid.uuid4().hex,
            place=GroupPlace(rank=0, num_ranks=num_ranks),
            limits=GroupLimits(),
            options=SharedMemoryOptions(slot_bytes=slot_bytes),
        )


def native_sum(ranks: SharedMemoryCommunicator) -> list[float]:
    """As a recorded step will call it: by the group's address, on a buffer of its own."""
    values = torch.full((3000,), 1.0 + ranks.place.rank)
    library = load_native_library(os.environ, print)
    address = ranks.native_ranks.address
    library.checked(library.sl_ranks_all_reduce(address, values.data_ptr(), values.numel(), Number.FLOAT32))
    return sorted(set(values.tolist()))


@pytest.mark.process
def test_native_code_can_make_a_groups_calls(processes: list[RankProcess], tmp_path: Path) -> None:
    join_all(processes, new_groups("shared_memory", 3, tmp_path))

    assert on_all(processes[:3], native_sum) == [[6.0]] * 3
