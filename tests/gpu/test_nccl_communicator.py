"""The communicator over NCCL, on one GPU: what a group of one rank can show of it."""

from pathlib import Path

import pytest
import torch
from torch.distributed import FileStore  # type: ignore[attr-defined]

from shardline_workers.collectives.torch_communicator import TorchCommunicator
from shardline_workers.communicator import GroupLimits, GroupPlace

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


def test_nccl_takes_every_call(tmp_path: Path) -> None:
    device = torch.device("cuda", 0)
    alone = TorchCommunicator(
        FileStore(str(tmp_path / "store"), 1),
        "tp",
        place=GroupPlace(rank=0, num_ranks=1),
        device=device,
        limits=GroupLimits(),
    )
    values = torch.arange(6.0, device=device).view(3, 2)
    summed, gathered, reduced = values.clone(), values.new_empty(1, 3, 2), torch.empty_like(values)
    received = torch.empty_like(values)

    alone.all_reduce_sum(summed)
    alone.all_gather(values, gathered)
    alone.reduce_scatter_sum(values.unsqueeze(0), reduced)
    alone.broadcast(values, 0)
    alone.all_to_all(values, received, send_rows=[3], receive_rows=[3])
    alone.barrier()
    torch.cuda.synchronize()

    assert all(torch.equal(found, values) for found in (summed, gathered[0], reduced, received))
    assert not alone.sums_in_rank_order
    alone.close()
