"""A layer of experts on native code, and the same in float64: what its tests share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.native_api import Format, OpKind
from shardline_workers.kernels.native_experts import ExpertRecorder
from shardline_workers.kernels.operands import PackedExpert, PackedLinear, Routes, RoutingRule
from tests.workers.kernels.native.programs import Batch, Floats, Machine, PackedMatrix, op, quantised_inputs

Wide = NDArray[np.float64]
Ids = NDArray[np.int32]
UNTOUCHED = -77.0


def random(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expert:
    """One expert packed, and its matrices as they were rounded."""

    expert_id: int
    gate_up: PackedMatrix
    down: PackedMatrix
    gate: Floats
    up: Floats

    def operand(self) -> PackedExpert:
        return PackedExpert(expert_id=self.expert_id, gate_up=_linear(self.gate_up), down=_linear(self.down))


def _linear(matrix: PackedMatrix) -> PackedLinear:
    layout = (int(matrix.kind), matrix.num_outputs)
    return PackedLinear(matrix.num_outputs, matrix.num_inputs, (torch.from_numpy(matrix.tiles),), layout)


def make_experts(
    machine: Machine, ids: Sequence[int], *, hidden: int, width: int, kind: Format, down_kind: Format
) -> list[Expert]:
    """Random experts of these ids."""
    experts = []
    for expert_id in ids:
        gate, up = random(width, hidden, seed=3 * expert_id), random(width, hidden, seed=3 * expert_id + 1)
        gate_up = machine.pack_gated(kind, gate, up)
        down = machine.pack(down_kind, random(hidden, width, seed=3 * expert_id + 2))
        rounded = [machine.unpack(gate_up, first_tile=first, tile_step=2, num_rows=width) for first in (0, 1)]
        experts.append(Expert(expert_id=expert_id, gate_up=gate_up, down=down, gate=rounded[0], up=rounded[1]))
    return experts


@dataclass(frozen=True, slots=True)
class Chosen:
    """What rows take."""

    ids: Ids  # [num_rows, num_active]
    weights: Floats  # [num_rows, num_active]

    def of(self, rows: slice | list[int] | NDArray[np.bool_]) -> "Chosen":
        return Chosen(np.ascontiguousarray(self.ids[rows]), np.ascontiguousarray(self.weights[rows]))


def random_choice(num_rows: int, num_active: int, num_ids: int, *, seed: int = 0) -> Chosen:
    """For each row different experts of num_ids."""
    generator = np.random.default_rng(seed)
    ids = np.stack([generator.permutation(num_ids)[:num_active] for _ in range(num_rows)]).astype(np.int32)
    return Chosen(ids, generator.random(ids.shape, dtype=np.float32))


def room_for(chosen: Chosen, max_rows: int) -> Routes:
    """Routes with room for more rows than are chosen: what lies beyond are ids of no expert."""
    num_rows, num_active = chosen.ids.shape
    ids = torch.full((max_rows, num_active), 2**31 - 1, dtype=torch.int32)
    weights = torch.full((max_rows, num_active), float("nan"))
    ids[:num_rows], weights[:num_rows] = torch.from_numpy(chosen.ids), torch.from_numpy(chosen.weights)
    return Routes(expert_ids=ids, weights=weights, num_rows=torch.tensor([num_rows], dtype=torch.int32))


class Recorded:
    """Operands with the buffers that they stand for."""

    def __init__(self, machine: Machine) -> None:
        self.kept: list[Tensor] = []
        self.recorder = ExpertRecorder(machine.library, self._address)

    def _address(self, tensor: Tensor, dtype: torch.dtype) -> int:
        assert tensor.dtype is dtype
        self.kept.append(tensor)
        return tensor.data_ptr()


def run_experts(
    machine: Machine,
    x: Floats,
    chosen: Chosen,
    experts: Sequence[Expert],
    *,
    isa: int | None = None,
    num_threads: int = 1,
    spare_rows: int = 3,
    told_rows: int | None = None,
    activation: api.Activation = api.Activation.SILU,
) -> Floats:
    """Delta of the rows; there is room for more of them, which must stay as it was.

    Args:
        machine: runs it.
        x: [num_rows, hidden].
        chosen: what the rows take.
        experts: of this rank.
        isa: an instruction set; None: the best.
        num_threads: that take part.
        spare_rows: that there is room for beside.
        told_rows: what is told as their number, where that is another.
        activation: of gates.
    """
    num_rows, hidden = x.shape
    max_rows = num_rows + spare_rows
    routes, recorded = room_for(chosen, max_rows), Recorded(machine)
    if told_rows is not None:
        routes.num_rows.fill_(told_rows)
    rows = torch.full((max_rows, hidden), float("nan"))
    rows[:num_rows] = torch.from_numpy(x)
    delta = torch.full((max_rows, hidden), UNTOUCHED)
    operands = [expert.operand() for expert in experts]
    ops = [
        op(OpKind.DEAL_ROWS, recorded.recorder.deal(rows, routes, operands)),
        op(OpKind.EXPERTS, recorded.recorder.experts(delta, routes, operands, activation=activation)),
    ]
    # The step's tokens are not what counts.
    machine.run(ops, Batch(num_tokens=1), isa=isa, num_threads=num_threads, max_tokens=8, max_seqs=4)
    assert (delta[num_rows:] == UNTOUCHED).all()
    return delta[:num_rows].numpy()


def run_route(
    machine: Machine,
    x: Floats,
    router: Floats,
    rule: RoutingRule,
    *,
    bias: Floats | None = None,
    counts: Tensor | None = None,
    isa: int | None = None,
    num_threads: int = 1,
) -> Chosen:
    """What tokens take; there is room for two more, which must stay as it was."""
    num_tokens, max_rows = len(x), len(x) + 2
    recorded = Recorded(machine)
    rows = torch.full((max_rows, x.shape[1]), float("nan"))
    rows[:num_tokens] = torch.from_numpy(x)
    routes = Routes(
        expert_ids=torch.full((max_rows, rule.num_active), -5, dtype=torch.int32),
        weights=torch.full((max_rows, rule.num_active), UNTOUCHED),
        num_rows=torch.tensor([-1], dtype=torch.int32),
    )
    route = recorded.recorder.route(
        routes,
        rows,
        torch.from_numpy(router),
        bias=None if bias is None else torch.from_numpy(bias),
        rule=rule,
        counts=counts,
    )
    machine.run([op(OpKind.ROUTE, route)], Batch(num_tokens=num_tokens), isa=isa, num_threads=num_threads)
    assert routes.num_rows.item() == num_tokens
    assert (routes.expert_ids[num_tokens:] == -5).all() and (routes.weights[num_tokens:] == UNTOUCHED).all()
    return Chosen(routes.expert_ids[:num_tokens].numpy(), routes.weights[:num_tokens].numpy())


def exact_delta(machine: Machine, x: Floats, chosen: Chosen, experts: Sequence[Expert]) -> Wide:
    """The sum over experts in float64, of inputs that are rounded as native code rounds them."""
    delta = np.zeros(x.shape)
    for expert in experts:
        rows, places = np.nonzero(chosen.ids == expert.expert_id)
        if not len(rows):
            continue
        inputs = quantised_inputs(expert.gate_up.kind, x[rows])
        gate, up = inputs @ expert.gate.T.astype(np.float64), inputs @ expert.up.T.astype(np.float64)
        activated = (gate / (1 + np.exp(-gate)) * up).astype(np.float32)
        outputs = quantised_inputs(expert.down.kind, activated) @ machine.unpack(expert.down).astype(np.float64).T
        np.add.at(delta, rows, outputs * chosen.weights[rows, places, None])
    return delta
