"""From a rank's weights to what stands behind attention in each layer: dense MLPs and mixtures of experts."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shardline_workers.collectives.rank_groups import RankGroups
from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.operands import LinearInput, Routes
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.expert_exchange_building import ExchangeBuilder, exchange_rows
from shardline_workers.models.expert_rows import ExpertRows
from shardline_workers.models.experts import Experts, ExpertsBuffers, ExpertsWeights
from shardline_workers.models.experts_shape import ExpertsShape
from shardline_workers.models.gated_mlp import GatedMlp, GatedMlpWeights
from shardline_workers.models.half_layer import HalfLayer
from shardline_workers.models.model_share import ModelShare


class MlpBuilder:
    """Makes them, with buffers that all layers of a rank share."""

    def __init__(
        self,
        shape: DecoderShape,
        share: ModelShare,
        *,
        kernels: Kernels,
        groups: RankGroups,
        max_tokens: int,
        device: torch.device,
    ) -> None:
        self._shape, self._share = shape, share
        self._kernels, self._groups = kernels, groups
        self._max_tokens, self._device = max_tokens, device

    def layers(
        self, weights: Sequence[GatedMlpWeights | ExpertsWeights], *, counts: Tensor | None
    ) -> tuple[HalfLayer, ...]:
        """One for each of the rank's layers.

        Args:
            weights: of the layers.
            counts: [layers, num_experts] int64, where routes are counted; None: no layer has experts.
        """
        activated = self._inputs_of([layer for layer in weights if isinstance(layer, GatedMlpWeights)])
        sparse = [layer for layer in weights if isinstance(layer, ExpertsWeights)]
        experts = self._experts(sparse, counts) if sparse and counts is not None else None

        def half(number: int, layer: GatedMlpWeights | ExpertsWeights) -> HalfLayer:
            if isinstance(layer, GatedMlpWeights):
                assert activated is not None, "dense layers have their buffer"
                return self._mlp(layer, activated)
            assert experts is not None, "layers with experts have their counts"
            return experts(number, layer)

        return tuple(half(number, layer) for number, layer in enumerate(weights))

    def _mlp(self, weights: GatedMlpWeights, activated: LinearInput) -> HalfLayer:
        return GatedMlp(
            activation=self._shape.style.activation, weights=weights, activated=activated, ranks=self._groups.tensor
        )

    def _experts(self, layers: Sequence[ExpertsWeights], counts: Tensor) -> Callable[[int, ExpertsWeights], HalfLayer]:
        """Makes those of any of the rank's layers, which have its number among them."""
        rule, buffers = self._experts_shape.rule, self._experts_buffers(layers)
        exchanges = ExchangeBuilder(self._share, self._groups, rows=self._exchange_rows(), device=self._device)

        def experts(number: int, weights: ExpertsWeights) -> HalfLayer:
            return Experts(
                activation=self._shape.style.activation,
                rule=rule,
                weights=weights,
                buffers=buffers,
                counts=counts[number],
                exchange=exchanges.exchange(self._share.layers[number]),
                ranks=self._groups.tensor,
            )

        return experts

    def _experts_buffers(self, layers: Sequence[ExpertsWeights]) -> ExpertsBuffers:
        shared = self._inputs_of([layer.shared for layer in layers if layer.shared is not None])
        return ExpertsBuffers(
            plain=self._rows(self._shape.hidden_size),
            routes=Routes.allocate(
                max_rows=self._max_tokens,
                num_active=self._experts_shape.rule.num_active,
                dtype=self._kernels.formats.activations,
                device=self._device,
            ),
            shared_activated=shared,
            shared_delta=None if shared is None else self._rows(self._shape.hidden_size),
        )

    def _exchange_rows(self) -> ExpertRows | None:
        return exchange_rows(
            self._share,
            self._experts_shape,
            max_tokens=self._max_tokens,
            hidden_size=self._shape.hidden_size,
            dtype=self._kernels.formats.activations,
            device=self._device,
        )

    def _inputs_of(self, layers: Sequence[GatedMlpWeights]) -> LinearInput | None:
        """Where the activated rows of so many MLPs go; None: of no MLP."""
        if not layers:
            return None
        return self._kernels.allocate_linear_input([layer.down for layer in layers], max_rows=self._max_tokens)

    def _rows(self, width: int) -> Tensor:
        return torch.empty((self._max_tokens, width), dtype=self._kernels.formats.activations, device=self._device)

    @property
    def _experts_shape(self) -> ExpertsShape:
        assert self._shape.experts is not None, "layers with experts have a shape"
        return self._shape.experts
