"""A group of one has everything already, and refuses what any group refuses."""

import pytest
import torch

from shardline_workers.collectives.errors import CommunicatorError
from shardline_workers.collectives.one_rank_communicator import OneRankCommunicator
from shardline_workers.communicator import Communicator, GroupLimits, GroupPlace


@pytest.fixture
def alone() -> Communicator:
    return OneRankCommunicator(torch.device("cpu"))


def test_every_result_is_what_was_given(alone: Communicator) -> None:
    values = torch.arange(6.0).view(3, 2)
    summed, gathered, reduced, received = values.clone(), torch.empty(1, 3, 2), torch.empty(3, 2), torch.empty(3, 2)

    alone.all_reduce_sum(summed)
    alone.all_gather(values, gathered)
    alone.reduce_scatter_sum(values.unsqueeze(0), reduced)
    alone.broadcast(values, 0)
    alone.all_to_all(values, received, send_rows=[3], receive_rows=[3])
    alone.barrier()

    assert all(torch.equal(found, values) for found in (summed, gathered[0], reduced, received))


def test_there_is_nobody_to_send_to(alone: Communicator) -> None:
    with pytest.raises(ValueError, match="destination is rank 0 itself; it must be another one"):
        alone.send(torch.ones(1), 0)
    with pytest.raises(ValueError, match=r"source is rank 1; it must be 0 … 0"):
        alone.recv(torch.ones(1), 1)


def test_what_a_group_would_refuse_is_refused(alone: Communicator) -> None:
    with pytest.raises(ValueError, match=r"values has dtype torch\.int64"):
        alone.all_reduce_sum(torch.ones(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="rank 0 sends itself 2 rows and receives 1"):
        alone.all_to_all(torch.ones(2), torch.ones(1), send_rows=[2], receive_rows=[1])
    with pytest.raises(ValueError, match=r"rows of values have the shape \(2,\), those of received \(1,\)"):
        alone.all_to_all(torch.ones(2, 2), torch.ones(2, 1), send_rows=[2], receive_rows=[2])


def test_after_closing_everything_is_refused(alone: Communicator) -> None:
    alone.close()

    with pytest.raises(CommunicatorError, match="was closed"):
        alone.barrier()


def test_a_place_that_a_group_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rank is 2; in a group of 2 it must be 0 … 1"):
        GroupPlace(rank=2, num_ranks=2)


def test_limits_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="both must be positive"):
        GroupLimits(wait_s=0)
