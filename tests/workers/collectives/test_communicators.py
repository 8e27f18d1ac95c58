"""What every communicator promises, on real processes: bits of sums, where everything arrives, what is refused."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from shardline_workers.collectives.errors import CommunicatorError, RanksDifferError
from shardline_workers.communicator import Communicator
from tests.workers.collectives.rank_processes import KINDS, Group, RankProcess, join, join_all, new_groups, on_all

pytestmark = pytest.mark.process

DTYPES = (torch.float32, torch.bfloat16, torch.float64)
SIZES = (0, 1, 7, 576, 2051)  # below, at and above the chunks of 4,096 bytes


def numbers(rank: int, size: int, dtype: torch.dtype) -> torch.Tensor:
    """So different in size that another order of summing gives other bits."""
    random = np.random.default_rng((rank, size))
    wide = random.standard_normal(size) * 2.0 ** random.integers(-12, 12, size)
    return torch.from_numpy(wide).to(dtype)


def sum_by_numpy(ranks: list[int], size: int, dtype: torch.dtype) -> bytes:
    """Bits of the sum in the order of `ranks`."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    rows = [numbers(rank, size, dtype).to(wide).numpy() for rank in ranks]
    total = rows[0].copy()
    for row in rows[1:]:
        total = total + row
    return bits(torch.from_numpy(total).to(dtype))


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def all_sums(ranks: Communicator) -> list[bytes]:
    found = []
    for dtype in DTYPES:
        for size in SIZES:
            values = numbers(ranks.place.rank, size, dtype)
            ranks.all_reduce_sum(values)
            found.append(bits(values))
    return found


def all_scattered_sums(ranks: Communicator) -> list[bytes]:
    found = []
    for dtype in DTYPES:
        for size in SIZES:
            rows = [numbers(ranks.place.rank, size, dtype) + row for row in range(ranks.place.num_ranks)]
            reduced = torch.empty(size, dtype=dtype)
            ranks.reduce_scatter_sum(torch.stack(rows), reduced)
            found.append(bits(reduced))
    return found


def moved(ranks: Communicator, rows: list[list[int]]) -> dict[str, list[object]]:
    """What arrives by everything that only moves numbers."""
    me, num_ranks = ranks.place.rank, ranks.place.num_ranks
    own = torch.arange(3000, dtype=torch.int64).view(1500, 2) * 10 + me
    gathered = torch.empty(num_ranks, 1500, 2, dtype=torch.int64)
    ranks.all_gather(own, gathered)
    told = own.clone()
    ranks.broadcast(told, num_ranks - 1)
    ring = torch.empty_like(own)
    if me == 0:  # a ring that all entered with a send might wait for ever
        ranks.send(own, 1)
        ranks.recv(ring, num_ranks - 1)
    else:
        ranks.recv(ring, me - 1)
        ranks.send(own, (me + 1) % num_ranks)
    takes = [row[me] for row in rows]
    values = torch.cat([torch.full((count, 3), 10 * me + to, dtype=torch.int16) for to, count in enumerate(rows[me])])
    received = torch.empty(sum(takes), 3, dtype=torch.int16)
    ranks.all_to_all(values, received, send_rows=rows[me], receive_rows=takes)
    ranks.barrier()
    return {
        "gathered": [sorted(set((part % 10).flatten().tolist())) for part in gathered],
        "told": sorted(set((told % 10).flatten().tolist())),
        "ring": sorted(set((ring % 10).flatten().tolist())),
        "received": received[:, 0].tolist(),
    }


@pytest.mark.parametrize("num_ranks", [2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    @pytest.fixture(autouse=True)
    def ranks(self, processes: list[RankProcess], kind: str, num_ranks: int, tmp_path: Path) -> list[RankProcess]:
        join_all(processes, new_groups(kind, num_ranks, tmp_path))
        return processes[:num_ranks]

    def test_sums_have_the_bits_of_numpy_in_rank_order_in_every_run(
        self, ranks: list[RankProcess], num_ranks: int
    ) -> None:
        in_order = list(range(num_ranks))
        wanted = [sum_by_numpy(in_order, size, dtype) for dtype in DTYPES for size in SIZES]

        runs = [on_all(ranks, all_sums) for _ in range(2)]

        assert runs == [[wanted] * num_ranks] * 2
        if num_ranks > 2:
            assert sum_by_numpy(in_order[::-1], 576, torch.float32) not in wanted

    def test_scattered_sums_have_the_bits_of_a_loop_over_ranks(self, ranks: list[RankProcess], num_ranks: int) -> None:
        found = on_all(ranks, all_scattered_sums)

        for rank in range(num_ranks):
            assert found[rank] == [scattered_sum(rank, num_ranks, size, dtype) for dtype in DTYPES for size in SIZES]

    def test_everything_that_is_moved_arrives_in_its_place(self, ranks: list[RankProcess], num_ranks: int) -> None:
        rows = [[(3 * to + 5 * by) % 4 * 100 for to in range(num_ranks)] for by in range(num_ranks)]

        found = on_all(ranks, moved, rows)

        for rank, arrived in enumerate(found):
            expected = [10 * by + rank for by in range(num_ranks) for _ in range(rows[by][rank])]
            assert arrived["received"] == expected
            assert arrived["gathered"] == [[other] for other in range(num_ranks)]
            assert arrived["told"] == [num_ranks - 1]
            assert arrived["ring"] == [(rank - 1) % num_ranks]


def scattered_sum(rank: int, num_ranks: int, size: int, dtype: torch.dtype) -> bytes:
    total = (numbers(0, size, dtype) + rank).to(torch.float64 if dtype == torch.float64 else torch.float32)
    for other in range(1, num_ranks):
        total = total + (numbers(other, size, dtype) + rank)
    return bits(total.to(dtype))


def refusals(ranks: Communicator) -> list[str]:
    """What is said to each wrong call; the group must be whole afterwards."""
    ones, two = torch.ones(4), ranks.place.num_ranks
    wrong: list[Callable[[], None]] = [
        lambda: ranks.all_reduce_sum(torch.ones(4, dtype=torch.int32)),
        lambda: ranks.all_reduce_sum(torch.ones(4, 4)[:, :2]),
        lambda: ranks.all_reduce_sum(torch.ones(4, device="meta")),
        lambda: ranks.all_gather(ones, torch.ones(two, 5)),
        lambda: ranks.all_gather(ones, torch.ones(two, 4, dtype=torch.float64)),
        lambda: ranks.reduce_scatter_sum(torch.ones(4), torch.ones(4)),
        lambda: ranks.broadcast(ones, two),
        lambda: ranks.send(ones, ranks.place.rank),
        lambda: ranks.recv(ones, -1),
        lambda: ranks.all_to_all(ones, torch.ones(3), send_rows=[4] + [0] * (two - 1), receive_rows=[4, 0]),
        lambda: ranks.all_to_all(ones, ones.clone(), send_rows=[4], receive_rows=[4]),
    ]
    told = []
    for call in wrong:
        with pytest.raises(ValueError) as caught:
            call()
        told.append(str(caught.value))
    ranks.barrier()
    return told


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_that_cannot_work_are_refused_and_the_group_stays_whole(
    processes: list[RankProcess], kind: str, tmp_path: Path
) -> None:
    join_all(processes, new_groups(kind, 2, tmp_path))

    told = on_all(processes[:2], refusals)

    assert told[1] == [
        "values has dtype torch.int32; sums take torch.float32, torch.bfloat16, torch.float64",
        "values has the strides (4, 1); it must be contiguous: call contiguous()",
        "values is on meta; this group exchanges tensors on cpu",
        "gathered has the shape (2, 5); it must be (2, 4)",
        "values and gathered have the dtypes ['torch.float32', 'torch.float64']; they must have one",
        "values has the shape (4,); it must be (2, 4)",
        "source is rank 2; it must be 0 … 1",
        "destination is rank 1 itself; it must be another one",
        "source is rank -1; it must be 0 … 1",
        "received has the shape (3,); its rows must be [4, 0]: 4",
        "the rows of values are [4]; there must be 2 counts, none negative",
    ]


def closed(ranks: Communicator) -> str:
    ranks.close()
    ranks.close()
    with pytest.raises(CommunicatorError) as caught:
        ranks.barrier()
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_communicator_refuses_and_may_be_closed_again(
    processes: list[RankProcess], kind: str, tmp_path: Path
) -> None:
    join_all(processes, new_groups(kind, 2, tmp_path))

    assert on_all(processes[:2], closed) == ["the communicator was closed"] * 2


def sum_of_own_size(ranks: Communicator) -> None:
    ranks.all_reduce_sum(torch.ones(4 + ranks.place.rank))


def test_sums_of_different_sizes_fail_on_both_ranks(processes: list[RankProcess], tmp_path: Path) -> None:
    join_all(processes, new_groups("shared_memory", 2, tmp_path))

    for process in processes[:2]:
        process.begin(sum_of_own_size)
    answers = [process.answer() for process in processes[:2]]

    assert [type(answer) for answer in answers] == [RanksDifferError] * 2
    assert "made another call, or the same with other sizes" in str(answers[0])


def test_a_rank_that_takes_anothers_place_is_refused(processes: list[RankProcess], tmp_path: Path) -> None:
    groups: list[Group] = new_groups("shared_memory", 2, tmp_path)
    twins = processes[:2]
    for process in twins:
        process.begin(join, groups[0])
    refused = next(process for process in itertools.cycle(twins) if process.answers_within(0.05))
    first = next(process for process in twins if process is not refused)

    answer = refused.answer()
    processes[2].begin(join, groups[1])

    assert str(answer) == f"rank 0 is taken: process {first.pid} has joined as it"
    assert [first.answer(), processes[2].answer()] == [None, None]
