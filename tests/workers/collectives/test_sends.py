"""A stage of a pipeline hands its step on and goes on, while the next stage still computes another."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
import torch
from torch.distributed import HashStore  # type: ignore[attr-defined]

from shardline_workers.collectives.shared_memory_communicator import SharedMemoryCommunicator, SharedMemoryOptions
from shardline_workers.collectives.torch_communicator import TorchCommunicator
from shardline_workers.communicator import Communicator, GroupLimits, GroupPlace
from shardline_workers.kernels.native_library import NativeLibrary

LIMITS = GroupLimits(join_s=20.0, wait_s=20.0)
SLOT_BYTES = 16 * 1024
MAILBOX_BYTES = SLOT_BYTES // 2  # two places of a quarter each


@pytest.fixture(params=["shared_memory", "gloo"])
def pair(request: pytest.FixtureRequest, native_library: NativeLibrary) -> Iterator[list[Communicator]]:
    """Both ends of a group of two. A test makes their calls one after the other, so whoever waits has lost."""
    store = HashStore()
    store.set_timeout(timedelta(seconds=20))
    name = uuid4().hex

    def joined(rank: int) -> Communicator:
        place = GroupPlace(rank=rank, num_ranks=2)
        if request.param == "gloo":
            return TorchCommunicator(store, name, place=place, device=torch.device("cpu"), limits=LIMITS)
        options = SharedMemoryOptions(slot_bytes=SLOT_BYTES, spin_s=0.0)
        return SharedMemoryCommunicator(native_library, name, place=place, limits=LIMITS, options=options)

    with ThreadPoolExecutor(2) as threads:
        ends = list(threads.map(joined, range(2)))
    yield ends
    for end in ends:
        end.close()


def numbers(count: int, first: int = 0) -> torch.Tensor:
    return torch.arange(first, first + count, dtype=torch.float32)


def test_a_step_is_sent_before_it_is_received_and_its_buffer_is_free_at_once(pair: list[Communicator]) -> None:
    sender, receiver = pair
    residual, received = numbers(MAILBOX_BYTES // 4), torch.empty(MAILBOX_BYTES // 4)

    sender.send(residual, 1)
    residual.fill_(-1.0)
    receiver.recv(received, 0)

    assert torch.equal(received, numbers(MAILBOX_BYTES // 4))


def test_steps_arrive_in_order(pair: list[Communicator]) -> None:
    sender, receiver = pair
    received = torch.empty(8)
    told: list[float] = []

    for number in range(0, 64, 8):
        sender.send(numbers(8, number), 1)
        receiver.recv(received, 0)
        told.append(float(received[0]))

    assert told == list(range(0, 64, 8))


def test_a_step_that_is_larger_than_a_mailbox_waits_for_its_receiver_and_the_wait_is_counted(
    pair: list[Communicator],
) -> None:
    sender, receiver = pair
    received = torch.empty(MAILBOX_BYTES)
    before_s = [end.waited_s for end in pair]

    with ThreadPoolExecutor(1) as thread:
        sent = thread.submit(sender.send, numbers(MAILBOX_BYTES), 1)
        receiver.recv(received, 0)
        sent.result()

    assert torch.equal(received, numbers(MAILBOX_BYTES))
    assert before_s == [0.0, 0.0]
    assert all(0 < end.waited_s < 20 for end in pair)
