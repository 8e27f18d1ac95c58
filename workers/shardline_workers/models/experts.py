"""A mixture of experts: one rank's experts, from normed rows to the delta.

normed rows ─▶ router ─▶ routes ─▶ experts ─▶ (+) delta
            └▶ shared MLP ───────────────────▶
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from shardline_workers.communicator import Communicator
from shardline_workers.kernels.operands import (
    Activation,
    LinearInput,
    PackedExpert,
    PackedLinear,
    Routes,
    RoutingRule,
    Rows,
)
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.step_buffers import StepBuffers
from shardline_workers.models.expert_exchange import ExpertExchange
from shardline_workers.models.gated_mlp import GatedMlpWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsWeights:
    """What a rank has of one layer's. Every rank has the whole router, so that all choose alike."""

    router: Tensor  # [num_experts, hidden], dtype of the activations
    router_bias: Tensor | None  # [num_experts] float32
    experts: tuple[PackedExpert, ...]  # with ascending ids; at least one
    shared: GatedMlpWeights | None

    @property
    def reader(self) -> PackedLinear:
        """A matrix that reads normed rows in the layout of linear inputs."""
        return self.experts[0].gate_up if self.shared is None else self.shared.gate_up

    def tensors(self) -> Iterator[Tensor]:
        """All of them."""
        yield self.router
        yield from () if self.router_bias is None else (self.router_bias,)
        for expert in self.experts:
            yield from (*expert.gate_up.tensors, *expert.down.tensors)
        yield from () if self.shared is None else self.shared.tensors()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsBuffers:
    """The same for all layers of a rank."""

    plain: Tensor  # [max_tokens, hidden]: normed rows as numbers
    routes: Routes  # of max_tokens rows
    shared_activated: LinearInput | None  # [max_tokens, shared width of this rank]
    shared_delta: Tensor | None  # [max_tokens, hidden]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """Implements `HalfLayer`."""

    activation: Activation
    rule: RoutingRule
    weights: ExpertsWeights
    buffers: ExpertsBuffers
    counts: Tensor  # [num_experts] int64: how many tokens of this rank's group took each expert, ever
    exchange: ExpertExchange
    ranks: Communicator  # that have the other parts of the shared MLP, and of experts whose delta is a part

    @property
    def reader(self) -> PackedLinear:
        """See `HalfLayer.reader`."""
        return self.weights.reader

    @property
    def plain(self) -> Tensor | None:
        """See `HalfLayer.plain`."""
        return self.buffers.plain

    def record(self, operations: Operations, normed: LinearInput, delta: Tensor, step: StepBuffers) -> None:
        """See `HalfLayer.record`."""
        weights, buffers = self.weights, self.buffers
        operations.route(
            buffers.routes,
            buffers.plain,
            weights.router,
            bias=weights.router_bias,
            rule=self.rule,
            counts=self.counts,
            step=step,
        )
        self.exchange.record(
            operations,
            delta,
            buffers.plain,
            buffers.routes,
            experts=weights.experts,
            activation=self.activation,
            step=step,
        )
        self._add_shared(operations, normed, delta, step)

    def _add_shared(self, operations: Operations, normed: LinearInput, delta: Tensor, step: StepBuffers) -> None:
        """Adds the shared MLP and sums over ranks, both at once where the experts' delta is a part too."""
        shared, activated, shared_delta = self.weights.shared, self.buffers.shared_activated, self.buffers.shared_delta
        is_part = self.exchange.leaves_parts
        if shared is not None:
            assert activated is not None and shared_delta is not None, "a shared MLP has its buffers"
            operations.gated_linear(
                activated, normed, shared.gate_up, activation=self.activation, reader=shared.down, step=step
            )
            operations.linear(shared_delta, activated, shared.down, rows=Rows.TOKENS, step=step)
            if not is_part:
                operations.all_reduce(shared_delta, self.ranks, rows=Rows.TOKENS, step=step)
            operations.add_delta(delta, shared_delta, delta_weight=None, epsilon=0.0, step=step)
        if is_part:
            operations.all_reduce(delta, self.ranks, rows=Rows.TOKENS, step=step)
