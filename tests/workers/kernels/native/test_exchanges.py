"""Operations that are calls to other ranks: recorded in native programs, made by the host, and the reference's."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest
import torch
from torch import Tensor

from shardline_workers.collectives.errors import CommunicatorError, RankLateError, RankLostError
from shardline_workers.collectives.shared_memory_communicator import SharedMemoryCommunicator
from shardline_workers.communicator import Communicator, GroupLimits
from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.native_kernels import NativeKernels
from shardline_workers.kernels.native_library import NativeError, NativeLibrary
from shardline_workers.kernels.operands import Rows
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.reference_kernels import ReferenceKernels
from shardline_workers.kernels.sampling_buffers import MAX_CANDIDATES, SamplingBuffers
from shardline_workers.kernels.step_buffers import StepBuffers, StepCount
from shardline_workers.parallel.unit_spans import unit_spans
from tests.workers.kernels.matrices import FloatMatrix, random
from tests.workers.thread_groups import ThreadGroup, thread_group

CPU = torch.device("cpu")
MAX_ROWS = 12
KINDS = ("reference", "native", "native by the host")
WIDTH = 48

NewKernels = Callable[[], Kernels]


class HostGroup:
    """A group whose calls only the host can make, as those of gloo and NCCL are."""

    native_ranks = None

    def __init__(self, group: Communicator) -> None:
        self._group = group

    def __getattr__(self, name: str) -> object:
        return getattr(self._group, name)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def new_kernels(kind: str, library: NativeLibrary) -> Iterator[NewKernels]:
    with ExitStack() as kept:

        def made() -> Kernels:
            if kind == "reference":
                return ReferenceKernels(dtype=torch.float32, device=CPU)
            return kept.enter_context(NativeKernels(library, num_threads=2))

        yield made


def end_of(group: SharedMemoryCommunicator, kind: str) -> Communicator:
    return HostGroup(group) if kind.endswith("host") else group  # type: ignore[return-value]


def step(*, tokens: int, sampled: int = 0) -> StepBuffers:
    buffers = StepBuffers.allocate(max_tokens=MAX_ROWS, max_seqs=2, max_sampled=MAX_ROWS, max_blocks=1, device=CPU)
    buffers.header[StepCount.TOKENS] = tokens
    buffers.header[StepCount.SAMPLED] = sampled
    return buffers


def sampling() -> SamplingBuffers:
    return SamplingBuffers.allocate(max_seqs=2, max_sampled=MAX_ROWS, max_logprobs=1, max_adjustments=8, device=CPU)


@pytest.mark.parametrize("num_tokens", [0, 1, MAX_ROWS - 1])
@pytest.mark.parametrize("num_ranks", [2, 3])
def test_rows_become_their_sum_in_rank_order(
    library: NativeLibrary, kind: str, new_kernels: NewKernels, num_ranks: int, num_tokens: int
) -> None:
    values = [torch.randn(MAX_ROWS, WIDTH, generator=torch.Generator().manual_seed(rank)) for rank in range(num_ranks)]

    def play(group: SharedMemoryCommunicator) -> Tensor:
        own, batch, end = values[group.place.rank].clone(), step(tokens=num_tokens), end_of(group, kind)
        program = new_kernels().record(lambda ops: ops.all_reduce(own, end, rows=Rows.TOKENS, step=batch))
        program.run(2)
        return own

    with thread_group(library, num_ranks) as ranks:
        told = ranks.on_all(play)

    total = values[0].clone()
    for other in values[1:]:
        total += other
    for own, before in zip(told, values, strict=True):
        assert torch.equal(own[:num_tokens], total[:num_tokens])
        assert torch.equal(own[num_tokens:], before[num_tokens:])


def test_rows_go_from_rank_to_rank(library: NativeLibrary, kind: str, new_kernels: NewKernels) -> None:
    def play(group: SharedMemoryCommunicator) -> Tensor:
        rank, batch, end = group.place.rank, step(tokens=5), end_of(group, kind)
        values = torch.full((MAX_ROWS, WIDTH), float(rank))

        def calls(operations: Operations) -> None:
            if rank > 0:
                operations.receive(values, end, rank - 1, rows=Rows.TOKENS, step=batch)
            if rank < 2:
                operations.send(values, end, rank + 1, rows=Rows.TOKENS, step=batch)

        new_kernels().record(calls).run(1)
        return values

    with thread_group(library, 3) as ranks:
        told = ranks.on_all(play)

    for rank, values in enumerate(told):
        assert (values[:5] == 0).all()
        assert (values[5:] == rank).all()


def rows_of_logits(vocab: int) -> Tensor:
    """Rows with ties, with a NaN, with infinities, with nothing but -inf."""
    logits = torch.randn(MAX_ROWS, vocab, generator=torch.Generator().manual_seed(9))
    logits[1] = logits[1].mul(2).round()
    logits[2, vocab // 2] = torch.nan
    logits[3, vocab - 1] = torch.inf
    logits[4] = -torch.inf
    logits[5, : vocab // 2] = -torch.inf
    logits[6] = 0.25
    return logits


def likeliest(row: Tensor, count: int) -> list[int]:
    return sorted(row.sort(descending=True, stable=True).indices[:count].tolist())


@pytest.mark.parametrize("vocab", [50, 600])
@pytest.mark.parametrize("num_ranks", [2, 4])
@pytest.mark.parametrize("count", [0, 1, 3, 40, MAX_CANDIDATES])
def test_logits_come_together_as_far_as_a_choice_needs_them(
    library: NativeLibrary, kind: str, new_kernels: NewKernels, num_ranks: int, vocab: int, count: int
) -> None:
    whole, spans = rows_of_logits(vocab), unit_spans(vocab, num_ranks, unit=16)
    num_rows = MAX_ROWS - 2

    def play(group: SharedMemoryCommunicator) -> Tensor:
        span, batch, end, buffers = spans[group.place.rank], step(tokens=0, sampled=num_rows), group, sampling()
        buffers.num_candidates[:] = count
        buffers.num_candidates[0] = 0
        gathered, own = torch.full((MAX_ROWS, vocab), -77.0), whole[:, span.start : span.stop].clone()
        new_kernels().record(
            lambda operations: operations.gather_logits(
                gathered if group.place.rank == 0 else None,
                own,
                end_of(end, kind),
                rank_sizes=[len(other) for other in spans],
                sampling=buffers,
                step=batch,
            )
        ).run(2)
        return gathered

    with thread_group(library, num_ranks) as ranks:
        gathered, *others = ranks.on_all(play)

    assert all((other == -77.0).all() for other in others)
    assert (gathered[num_rows:] == -77.0).all()
    assert torch.equal(gathered[0], whole[0])
    for ours, row in zip(gathered[1:num_rows], whole[1:num_rows], strict=True):
        if row.isnan().any():
            assert ours.isnan().any()
            continue
        ids = likeliest(row, count or vocab)
        assert torch.equal(ours[ids], row[ids])
        assert ((ours == row) | (ours == -torch.inf)).all()
        if 2 * count < min(map(len, spans)) and count:
            told = sum(min(count, len(span)) for span in spans[1:]) + len(spans[0])
            assert (ours != -torch.inf).sum() <= told


@pytest.mark.parametrize("count", [1, 5])
def test_every_instruction_set_tells_the_same_logits(library: NativeLibrary, count: int) -> None:
    whole, spans = rows_of_logits(200), unit_spans(200, 2, unit=16)

    def play(group: SharedMemoryCommunicator, name: str) -> Tensor:
        span, batch, buffers = spans[group.place.rank], step(tokens=0, sampled=MAX_ROWS), sampling()
        buffers.num_candidates[:] = count
        gathered, own = torch.zeros(MAX_ROWS, 200), whole[:, span.start : span.stop].clone()
        with NativeKernels(library, num_threads=1, instruction_set=name) as kernels:
            kernels.record(
                lambda operations: operations.gather_logits(
                    gathered if group.place.rank == 0 else None,
                    own,
                    group,
                    rank_sizes=[len(other) for other in spans],
                    sampling=buffers,
                    step=batch,
                )
            ).run(1)
        return gathered

    with thread_group(library, 2) as ranks:
        told = [ranks.on_all(partial(play, name=name))[0] for name in library.available_isas()]

    usable = [row for row in range(MAX_ROWS) if not whole[row].isnan().any()]
    assert all(torch.equal(other[usable], told[0][usable]) for other in told)
    assert all(other[2].isnan().any() for other in told)


def test_each_rank_adjusts_its_own_ids_of_rows_that_it_tells_few_of(
    library: NativeLibrary, new_kernels: NewKernels
) -> None:
    logits, spans = random(MAX_ROWS, 50).float(), unit_spans(50, 3, unit=16)
    buffers, batch = sampling(), step(tokens=0, sampled=2)
    batch.header[StepCount.ADJUSTED] = 2
    buffers.num_candidates[0] = 1
    buffers.adjusted_rows[:2] = torch.tensor([0, 1])
    buffers.adjusted_slots[:2] = torch.tensor([1, 0])
    buffers.adjustments.lengths[:] = 3
    buffers.adjustments.ids[:, :3] = torch.tensor([0, 20, 49])
    buffers.adjustments.biases[:, :3] = torch.tensor([1.0, 2.0, -torch.inf])
    buffers.adjustments.occurrences[:, :3] = -1
    parts = [logits[:, span.start : span.stop].clone() for span in spans]
    together = logits.clone()

    for part, span in zip(parts, spans, strict=True):
        new_kernels().record(
            lambda ops, part=part, span=span: ops.adjust_logits(buffers, part, first_id=span.start, step=batch)  # type: ignore[misc]
        ).run(1)
    new_kernels().record(lambda ops: ops.adjust_logits(buffers, together, step=batch)).run(1)

    expected = logits.clone()
    expected[:2, [0, 20, 49]] += torch.tensor([1.0, 2.0, -torch.inf])
    assert torch.equal(torch.cat(parts, dim=1)[0], expected[0])
    assert torch.equal(torch.cat(parts, dim=1)[1:], logits[1:])
    assert torch.equal(together[1], expected[1])
    assert torch.equal(together[0], logits[0])


def test_embeddings_of_ranks_are_zero_for_ids_of_others(new_kernels: NewKernels) -> None:
    table, spans, batch = random(50, WIDTH).float(), unit_spans(50, 3, unit=16), step(tokens=4)
    batch.token_ids[:4] = torch.tensor([0, 31, 32, 49])
    outs = [torch.full((MAX_ROWS, WIDTH), -77.0) for _ in spans]

    for out, span in zip(outs, spans, strict=True):
        kernels = new_kernels()
        part = kernels.pack_linear([FloatMatrix(table[span.start : span.stop])])
        kernels.record(
            lambda ops, out=out, part=part, span=span: ops.embedding(out, part, first_id=span.start, step=batch)  # type: ignore[misc]
        ).run(1)

    assert torch.equal(torch.stack(outs).sum(dim=0)[:4], table[[0, 31, 32, 49]])
    assert all((out[4:] == -77.0).all() for out in outs)


def test_a_norm_that_nobody_wants_adds_its_delta(new_kernels: NewKernels) -> None:
    residual, delta, weight = (
        random(MAX_ROWS, WIDTH).float(),
        random(MAX_ROWS, WIDTH, seed=1).float(),
        torch.ones(WIDTH),
    )
    plain, normed, batch = residual.clone(), residual.clone(), step(tokens=5)

    def calls(operations: Operations) -> None:
        operations.add_delta(plain, delta, delta_weight=None, epsilon=1e-5, step=batch)
        operations.add_delta(normed, delta, delta_weight=weight, epsilon=1e-5, step=batch)

    new_kernels().record(calls).run(2)

    scaled = delta / (delta.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    assert torch.equal(plain[:5], (residual + delta)[:5])
    torch.testing.assert_close(normed[:5], (residual + scaled)[:5])
    assert torch.equal(plain[5:], residual[5:]) and torch.equal(normed[5:], residual[5:])


def sums(group: ThreadGroup, play: Callable[[SharedMemoryCommunicator], object]) -> list[object]:
    """What each rank's play ends with, failures as objects."""

    def ended(rank: SharedMemoryCommunicator) -> object:
        try:
            return play(rank)
        except Exception as error:
            return error

    return group.on_all(ended)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_rank_that_left_ends_the_run_of_the_others(library: NativeLibrary, num_threads: int) -> None:
    values = [torch.ones(MAX_ROWS, WIDTH) for _ in range(3)]

    def play(group: SharedMemoryCommunicator) -> None:
        own, batch = values[group.place.rank], step(tokens=3)

        def calls(operations: Operations) -> None:
            operations.all_reduce(own, group, rows=Rows.TOKENS, step=batch)
            operations.add_delta(own, torch.ones(MAX_ROWS, WIDTH), delta_weight=None, epsilon=1e-5, step=batch)

        with NativeKernels(library, num_threads=2) as kernels:
            program = kernels.record(calls)
            if group.place.rank == 2:
                group.close()
            program.run(num_threads)

    with thread_group(library, 3) as group:
        first, second, third = sums(group, play)

    assert isinstance(first, RankLostError) and "rank 2" in str(first)
    assert isinstance(second, RankLostError)
    assert str(third) == "the communicator was closed"
    assert (values[0] == 1).all(), "what came behind the sum was not computed"


def test_a_rank_that_does_not_come_is_late(library: NativeLibrary) -> None:
    def play(group: SharedMemoryCommunicator) -> None:
        own, batch = torch.ones(MAX_ROWS, WIDTH), step(tokens=3)
        if group.place.rank == 0:
            with NativeKernels(library, num_threads=1) as kernels:
                kernels.record(lambda ops: ops.all_reduce(own, group, rows=Rows.TOKENS, step=batch)).run(1)

    with thread_group(library, 2, limits=GroupLimits(join_s=30.0, wait_s=0.05)) as group:
        first, _ = sums(group, play)

    assert isinstance(first, RankLateError) and isinstance(first, CommunicatorError)


def test_more_candidates_than_there_is_room_for_are_refused(library: NativeLibrary) -> None:
    def play(group: SharedMemoryCommunicator) -> None:
        buffers, batch, own = sampling(), step(tokens=0, sampled=1), torch.zeros(MAX_ROWS, 16)
        buffers.num_candidates[0] = MAX_CANDIDATES + 1
        with NativeKernels(library, num_threads=1) as kernels:
            kernels.record(
                lambda ops: ops.gather_logits(
                    torch.zeros(MAX_ROWS, 32) if group.place.rank == 0 else None,
                    own,
                    group,
                    rank_sizes=(16, 16),
                    sampling=buffers,
                    step=batch,
                )
            ).run(1)

    with thread_group(library, 2) as group:
        told = sums(group, play)

    for error in told:
        assert isinstance(error, NativeError)
        assert str(error) == f"num_candidates[0] is {MAX_CANDIDATES + 1}; it must be 0 … {MAX_CANDIDATES}"
