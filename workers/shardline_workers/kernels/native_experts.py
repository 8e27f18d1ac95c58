"""Writes routing and experts down for native code, with the tables and panels that they need between.

The operations of all layers come one after the other, so layers of the same sizes share these buffers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.kernels.native_weights import aligned_bytes, panel_kind, segments
from shardline_workers.kernels.operands import PackedExpert, PackedLinear, Routes, RoutingRule, Scoring

_SCORINGS = MappingProxyType({Scoring.SOFTMAX: api.Scoring.SOFTMAX, Scoring.SIGMOID: api.Scoring.SIGMOID})

Addressing = Callable[[Tensor, torch.dtype], int]  # where a buffer of this dtype lies; it is kept alive from then on


@dataclass(frozen=True, slots=True)
class DealtPlaces:
    """Tables of rows by expert, see sl_dealt_rows in native/api.h."""

    starts: Tensor  # [num_experts + 1] int32
    rows: Tensor  # [max_rows · num_active] int32
    weights: Tensor  # [max_rows · num_active] float32
    places: Tensor  # [max_rows · num_active] int32
    active: Tensor  # [num_experts] int32
    num_active: Tensor  # [1] int32

    @classmethod
    def allocate(cls, *, num_experts: int, num_choices: int) -> "DealtPlaces":
        """Tables for so many experts of a rank, and so many choices of all rows."""

        def zeros(size: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.zeros(size, dtype=dtype)

        return cls(
            starts=zeros(num_experts + 1),
            rows=zeros(num_choices),
            weights=zeros(num_choices, torch.float32),
            places=zeros(num_choices),
            active=zeros(num_experts),
            num_active=zeros(1),
        )


class ExpertRecorder:
    """Makes the operands of the operations of mixtures of experts."""

    def __init__(self, library: NativeLibrary, address: Addressing) -> None:
        """Allocates nothing yet.

        Args:
            library: the native code.
            address: keeps a buffer alive and tells where it lies.
        """
        self._library = library
        self._address = address
        self._logits: dict[tuple[int, int], Tensor] = {}
        self._places: dict[tuple[int, int], DealtPlaces] = {}
        self._panels: dict[tuple[object, ...], Tensor] = {}

    def route(
        self,
        routes: Routes,
        x: Tensor,
        router: Tensor,
        *,
        bias: Tensor | None,
        rule: RoutingRule,
        counts: Tensor | None,
    ) -> api.Route:
        """Of `Operations.route`."""
        num_experts, width = router.shape
        key = (routes.expert_ids.shape[0], num_experts)
        logits = self._logits.setdefault(key, torch.empty(key, dtype=torch.float32))
        return api.Route(
            x=self._floats(x),
            x_stride=x.stride(0),
            router=self._floats(router.contiguous()),
            bias=None if bias is None else self._floats(bias),
            logits=self._floats(logits),
            counts=None if counts is None else self._address(counts, torch.int64),
            routes=self._routes(routes),
            width=width,
            num_experts=num_experts,
            scoring=_SCORINGS[rule.scoring],
            renormalises=rule.renormalises,
            num_groups=rule.num_groups,
            num_active_groups=rule.num_active_groups,
            scale=rule.scale,
        )

    def deal(self, x: Tensor, routes: Routes, experts: Sequence[PackedExpert]) -> api.DealRows:
        """The first half of `Operations.experts`: rows by expert."""
        id_to_number = torch.full((experts[-1].expert_id + 1,), -1, dtype=torch.int32)
        for number, expert in enumerate(experts):
            id_to_number[expert.expert_id] = number
        return api.DealRows(
            x=self._floats(x),
            x_stride=x.stride(0),
            routes=self._routes(routes),
            id_to_number=self._address(id_to_number, torch.int32),
            dealt=self._dealt(routes, experts),
            row_panels=self._panels_of("rows", experts[0].gate_up, len(routes.expert_ids)).bytes,
            num_ids=len(id_to_number),
        )

    def experts(
        self, delta: Tensor, routes: Routes, experts: Sequence[PackedExpert], *, activation: api.Activation
    ) -> api.Experts:
        """The other half: their products, weighted and summed."""
        weights = [
            api.Expert(gate_up=self._weight(expert.gate_up), down=self._weight(expert.down)) for expert in experts
        ]
        table = (api.Expert * len(weights))(*weights)
        words = torch.frombuffer(table, dtype=torch.uint8)  # owns the table
        return api.Experts(
            routes=self._routes(routes),
            dealt=self._dealt(routes, experts),
            experts=self._address(words, torch.uint8),
            activated=self._panels_of("activated", experts[0].down, routes.expert_ids.numel()),
            delta=self._floats(delta),
            delta_stride=delta.stride(0),
            activation=activation,
        )

    def _routes(self, routes: Routes) -> api.Routes:
        max_rows, num_active = routes.expert_ids.shape
        return api.Routes(
            expert_ids=self._address(routes.expert_ids, torch.int32),
            weights=self._floats(routes.weights),
            num_rows=self._address(routes.num_rows, torch.int32),
            max_rows=max_rows,
            num_active=num_active,
        )

    def _dealt(self, routes: Routes, experts: Sequence[PackedExpert]) -> api.DealtRows:
        num_choices = routes.expert_ids.numel()
        key = (len(experts), num_choices)
        if key not in self._places:
            self._places[key] = DealtPlaces.allocate(num_experts=len(experts), num_choices=num_choices)
        places = self._places[key]
        return api.DealtRows(
            starts=self._address(places.starts, torch.int32),
            rows=self._address(places.rows, torch.int32),
            weights=self._floats(places.weights),
            places=self._address(places.places, torch.int32),
            active=self._address(places.active, torch.int32),
            num_active=self._address(places.num_active, torch.int32),
            panels=self._panels_of("inputs", experts[0].gate_up, num_choices),
            num_experts=len(experts),
        )

    def _panels_of(self, use: str, reader: PackedLinear, max_rows: int) -> api.Panels:
        """Panels that a matrix reads; one buffer for each use and size."""
        kind = panel_kind(reader)
        key = (use, kind, reader.num_inputs, max_rows)
        if key not in self._panels:
            num_bytes = self._library.panel_bytes(kind, max_rows, reader.num_inputs)
            self._panels[key] = torch.from_numpy(aligned_bytes(num_bytes))
        return api.Panels(kind=kind, num_inputs=reader.num_inputs, bytes=self._address(self._panels[key], torch.uint8))

    def _weight(self, matrix: PackedLinear) -> api.Weight:
        (segment,) = segments(matrix)
        return api.Weight(
            format=segment.format,
            num_outputs=segment.num_outputs,
            num_inputs=matrix.num_inputs,
            tiles=self._address(segment.tiles, torch.uint8),
        )

    def _floats(self, tensor: Tensor) -> int:
        return self._address(tensor, torch.float32)
