"""Writes a step's operations down for native code: one sl_op for each, with the addresses of its buffers."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from shardline_workers.communicator import Communicator
from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.native_experts import ExpertRecorder
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.kernels.native_operands import NativeOperands
from shardline_workers.kernels.native_recording import Recording, RecordingPieces
from shardline_workers.kernels.native_weights import Segment, segments
from shardline_workers.kernels.operands import (
    Activation,
    AttentionShape,
    HeadNorms,
    KvCache,
    LinearInput,
    PackedExpert,
    PackedLinear,
    RotaryPairing,
    RotaryTable,
    Routes,
    RoutingRule,
    Rows,
    ScoreRule,
)
from shardline_workers.kernels.sampling_buffers import SamplingBuffers
from shardline_workers.kernels.step_buffers import StepBuffers

_PAIRINGS = {RotaryPairing.HALVES: api.Pairing.HALVES, RotaryPairing.NEIGHBOURS: api.Pairing.NEIGHBOURS}
_ACTIVATIONS = {Activation.SILU: api.Activation.SILU, Activation.GELU_TANH: api.Activation.GELU_TANH}
_PANEL_WIDTH = 32  # inputs; attention writes panels only where heads fill them


Columns = tuple[range, Segment]  # of a tensor, and what writes them


class NativeRecorder:
    """Implements `Operations`: nothing is computed, every call is written down."""

    def __init__(self, library: NativeLibrary) -> None:
        """Nothing is written down yet.

        Args:
            library: knows the sizes of buffers between operations.
        """
        self._pieces = RecordingPieces()
        self._operands = NativeOperands(self._pieces)
        self._experts = ExpertRecorder(library, self._operands.address)

    def recording(self) -> Recording:
        """Everything so far."""
        return self._pieces.finish()

    def embedding(
        self, out: Tensor, table: PackedLinear, *, scale: float = 1.0, first_id: int | None = None, step: StepBuffers
    ) -> None:
        """See `Operations.embedding`."""
        (segment,) = segments(table)
        self._add(
            step,
            api.OpKind.EMBEDDING,
            Rows.TOKENS,
            embedding=api.Embedding(
                table=self._operands.weight(segment, table.num_inputs),
                out=self._operands.floats(out),
                out_stride=out.stride(0),
                scale=scale,
                is_part=first_id is not None,
                first_id=first_id or 0,
            ),
        )

    def rms_norm(
        self,
        out: LinearInput,
        residual: Tensor,
        delta: Tensor | None,
        weight: Tensor,
        *,
        delta_weight: Tensor | None = None,
        epsilon: float,
        rows: Rows,
        reader: PackedLinear,
        plain: Tensor | None = None,
        step: StepBuffers,
    ) -> None:
        """See `Operations.rms_norm`."""
        norm = api.Norm(
            residual=self._operands.floats(residual),
            delta=None if delta is None else self._operands.floats(delta),
            weight=self._operands.floats(weight),
            panels=self._operands.panels(out, reader),
            width=out.num_inputs,
            epsilon=epsilon,
            delta_weight=None if delta_weight is None else self._operands.floats(delta_weight),
        )
        if plain is not None:
            norm.out, norm.out_stride = self._operands.floats(plain), plain.stride(0)
        self._add(step, api.OpKind.NORM, rows, norm=norm)

    def add_delta(
        self, residual: Tensor, delta: Tensor, *, delta_weight: Tensor | None, epsilon: float, step: StepBuffers
    ) -> None:
        """See `Operations.add_delta`: a norm that nobody wants."""
        norm = api.Norm(
            residual=self._operands.floats(residual),
            delta=self._operands.floats(delta),
            width=residual.shape[1],
            epsilon=epsilon,
            delta_weight=None if delta_weight is None else self._operands.floats(delta_weight),
        )
        self._add(step, api.OpKind.NORM, Rows.TOKENS, norm=norm)

    def linear(self, out: Tensor, x: LinearInput, weight: PackedLinear, *, rows: Rows, step: StepBuffers) -> None:
        """See `Operations.linear`: an operation for each segment, that writes its own columns."""
        first_column = 0
        for segment in segments(weight):
            last_column = first_column + segment.num_outputs
            self._linear(out[:, first_column:last_column], x, weight, segment, rows=rows, step=step)
            first_column = last_column

    def linear_apart(self, outs: Sequence[Tensor], x: LinearInput, weight: PackedLinear, *, step: StepBuffers) -> None:
        """See `Operations.linear_apart`: an operation for each segment."""
        places = [place for out in outs for place in _heads(out)]
        for place, pieces in _dealt(places, weight):
            for columns, segment in pieces:
                self._linear(place[:, columns.start : columns.stop], x, weight, segment, rows=Rows.TOKENS, step=step)

    def head_linear(
        self, out: Tensor, x: Tensor, weight: PackedLinear, *, room: LinearInput, step: StepBuffers
    ) -> None:
        """See `Operations.head_linear`: one head after the other."""
        for (place, pieces), head in zip(_dealt(_heads(out), weight), _heads(x), strict=True):
            self.quantise(room, head, rows=Rows.TOKENS, reader=weight, step=step)
            for columns, segment in pieces:
                self._linear(place[:, columns.start : columns.stop], room, weight, segment, rows=Rows.TOKENS, step=step)

    def quantise(self, out: LinearInput, x: Tensor, *, rows: Rows, reader: PackedLinear, step: StepBuffers) -> None:
        """See `Operations.quantise`."""
        quantise = api.Quantise(
            x=self._operands.floats(x), x_stride=x.stride(0), panels=self._operands.panels(out, reader)
        )
        self._add(step, api.OpKind.QUANTISE, rows, quantise=quantise)

    def gated_linear(
        self,
        out: LinearInput,
        x: LinearInput,
        weight: PackedLinear,
        *,
        activation: Activation = Activation.SILU,
        reader: PackedLinear,
        step: StepBuffers,
    ) -> None:
        """See `Operations.gated_linear`."""
        (segment,) = segments(weight)
        gated = api.GatedLinear(
            x=self._operands.panels(x, weight),
            weight=self._operands.weight(segment, weight.num_inputs),
            panels=self._operands.panels(out, reader),
            activation=_ACTIVATIONS[activation],
        )
        self._add(step, api.OpKind.GATED_LINEAR, Rows.TOKENS, gated_linear=gated)

    def route(
        self,
        routes: Routes,
        x: Tensor,
        router: Tensor,
        *,
        bias: Tensor | None,
        rule: RoutingRule,
        counts: Tensor | None = None,
        step: StepBuffers,
    ) -> None:
        """See `Operations.route`."""
        route = self._experts.route(routes, x, router, bias=bias, rule=rule, counts=counts)
        self._add(step, api.OpKind.ROUTE, Rows.TOKENS, route=route)

    def experts(
        self,
        delta: Tensor,
        x: Tensor,
        routes: Routes,
        experts: Sequence[PackedExpert],
        *,
        activation: Activation,
        step: StepBuffers,
    ) -> None:
        """See `Operations.experts`: rows by expert, then their products."""
        products = self._experts.experts(delta, routes, experts, activation=_ACTIVATIONS[activation])
        self._add(step, api.OpKind.DEAL_ROWS, Rows.TOKENS, deal_rows=self._experts.deal(x, routes, experts))
        self._add(step, api.OpKind.EXPERTS, Rows.TOKENS, experts=products)

    def rotate_and_store(
        self,
        queries: Tensor,
        qkv: Tensor,
        cache: KvCache,
        rotary: RotaryTable,
        *,
        norms: HeadNorms | None = None,
        shape: AttentionShape,
        step: StepBuffers,
    ) -> None:
        """See `Operations.rotate_and_store`."""
        rotate = api.RotateStore(
            qkv=self._operands.floats(qkv),
            qkv_stride=qkv.stride(0),
            queries=self._operands.address(queries, torch.bfloat16),
            cosines=self._operands.floats(rotary.cosines),
            sines=self._operands.floats(rotary.sines),
            max_len=rotary.cosines.shape[0],
            rotary_dim=2 * rotary.cosines.shape[1],
            pairing=_PAIRINGS[rotary.pairing],
            num_heads=shape.num_heads,
            cache=self._operands.cache(cache, shape),
            shares_values=shape.shares_values,
        )
        if norms is not None:
            rotate.query_norm = self._operands.floats(norms.queries)
            rotate.key_norm = self._operands.floats(norms.keys)
            rotate.epsilon = norms.epsilon
        self._add(step, api.OpKind.ROTATE_STORE, Rows.TOKENS, rotate_store=rotate)

    def attention(
        self,
        out: LinearInput | Tensor,
        queries: Tensor,
        cache: KvCache,
        *,
        shape: AttentionShape,
        scores: ScoreRule,
        reader: PackedLinear | None,
        step: StepBuffers,
    ) -> None:
        """See `Operations.attention`; heads that do not fill panels go by way of float32."""
        attention = api.Attention(
            queries=self._operands.address(queries, torch.bfloat16),
            cache=self._operands.cache(cache, shape),
            num_heads=shape.num_heads,
            scale=scores.scale,
            window=scores.window or 0,
            softcap=scores.softcap or 0,
            sinks=None if scores.sinks is None else self._operands.floats(scores.sinks),
        )
        if isinstance(out, Tensor):
            assert out.is_contiguous(), "native attention writes rows that touch"
            attention.out = self._operands.floats(out)
            self._add(step, api.OpKind.ATTENTION, Rows.TOKENS, attention=attention)
            return
        assert reader is not None, "what is written as an input has a reader"
        if shape.head_dim % _PANEL_WIDTH == 0:
            attention.panels = self._operands.panels(out, reader)
            self._add(step, api.OpKind.ATTENTION, Rows.TOKENS, attention=attention)
            return
        floats = torch.empty((queries.shape[0], shape.query_size), dtype=torch.float32)
        attention.out = self._operands.floats(floats)
        self._add(step, api.OpKind.ATTENTION, Rows.TOKENS, attention=attention)
        self.quantise(out, floats, rows=Rows.TOKENS, reader=reader, step=step)

    def all_reduce(self, values: Tensor, group: Communicator, *, rows: Rows, step: StepBuffers) -> None:
        """See `Operations.all_reduce`."""
        if group.native_ranks is not None:
            self._exchange(api.OpKind.ALL_REDUCE, values, group, peer=0, rows=rows, step=step)
        elif group.place.num_ranks > 1:
            self._pieces.add_host_call(step, lambda host: host.all_reduce(values, group, rows=rows, step=step))

    def send(self, values: Tensor, group: Communicator, destination: int, *, rows: Rows, step: StepBuffers) -> None:
        """See `Operations.send`."""
        if group.native_ranks is not None:
            self._exchange(api.OpKind.SEND, values, group, peer=destination, rows=rows, step=step)
        else:
            self._pieces.add_host_call(step, lambda host: host.send(values, group, destination, rows=rows, step=step))

    def receive(self, values: Tensor, group: Communicator, source: int, *, rows: Rows, step: StepBuffers) -> None:
        """See `Operations.receive`."""
        if group.native_ranks is not None:
            self._exchange(api.OpKind.RECEIVE, values, group, peer=source, rows=rows, step=step)
        else:
            self._pieces.add_host_call(step, lambda host: host.receive(values, group, source, rows=rows, step=step))

    def _exchange(
        self, kind: api.OpKind, values: Tensor, group: Communicator, *, peer: int, rows: Rows, step: StepBuffers
    ) -> None:
        self._add(step, kind, rows, exchange=self._operands.exchange(values, group, peer=peer))

    def gather_logits(
        self,
        logits: Tensor | None,
        rank_logits: Tensor,
        group: Communicator,
        *,
        rank_sizes: Sequence[int],
        sampling: SamplingBuffers,
        step: StepBuffers,
    ) -> None:
        """See `Operations.gather_logits`."""
        if group.native_ranks is None and group.place.num_ranks > 1:
            self._pieces.add_host_call(
                step,
                lambda host: host.gather_logits(
                    logits, rank_logits, group, rank_sizes=rank_sizes, sampling=sampling, step=step
                ),
            )
        if group.native_ranks is None:
            return
        gather = self._operands.gather_logits(
            logits, rank_logits, group, rank_sizes=rank_sizes, num_candidates=sampling.num_candidates
        )
        self._add(step, api.OpKind.GATHER_LOGITS, Rows.SAMPLED, gather_logits=gather)

    def on_host(self, call: Callable[[], None], *, step: StepBuffers) -> None:
        """See `Operations.on_host`."""
        self._pieces.add_host_call(step, lambda _: call())

    def soft_cap(self, values: Tensor, *, cap: float, rows: Rows, step: StepBuffers) -> None:
        """See `Operations.soft_cap`."""
        capped = api.SoftCap(x=self._operands.floats(values), x_stride=values.stride(0), width=values.shape[1], cap=cap)
        self._add(step, api.OpKind.SOFT_CAP, rows, soft_cap=capped)

    def adjust_logits(
        self, sampling: SamplingBuffers, logits: Tensor, *, first_id: int | None = None, step: StepBuffers
    ) -> None:
        """See `Operations.adjust_logits`."""
        self._choose(api.OpKind.ADJUST_LOGITS, sampling, logits, step, first_id=first_id)

    def choose_given(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """See `Operations.choose_given`."""
        self._choose(api.OpKind.CHOOSE_GIVEN, sampling, logits, step)

    def restore_logits(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """See `Operations.restore_logits`."""
        self._choose(api.OpKind.RESTORE_LOGITS, sampling, logits, step)

    def choose_greedy(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """See `Operations.choose_greedy`."""
        self._choose(api.OpKind.CHOOSE_GREEDY, sampling, logits, step)

    def choose_drawn(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """See `Operations.choose_drawn`."""
        self._choose(api.OpKind.CHOOSE_DRAWN, sampling, logits, step)

    def logprobs(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """See `Operations.logprobs`."""
        self._choose(api.OpKind.LOGPROBS, sampling, logits, step)

    def _choose(
        self,
        kind: api.OpKind,
        sampling: SamplingBuffers,
        logits: Tensor,
        step: StepBuffers,
        *,
        first_id: int | None = None,
    ) -> None:
        choice = self._operands.choice(sampling, logits, first_id=first_id)
        self._add(step, kind, Rows.SAMPLED, choice=choice)

    def _add(self, step: StepBuffers, kind: api.OpKind, rows: Rows, **operands: object) -> None:
        self._pieces.add_op(step, api.Op(kind=kind, rows=rows, operands=api.Operands(**operands)))

    def _linear(
        self,
        out: Tensor,
        x: LinearInput,
        weight: PackedLinear,
        segment: Segment,
        *,
        rows: Rows,
        step: StepBuffers,
    ) -> None:
        """One segment of a weight."""
        linear = api.Linear(
            x=self._operands.panels(x, weight),
            weight=self._operands.weight(segment, weight.num_inputs),
            out=self._operands.floats(out),
            out_stride=out.stride(0),
        )
        self._add(step, api.OpKind.LINEAR, rows, linear=linear)


def _heads(tensor: Tensor) -> list[Tensor]:
    """The heads of [rows, heads, columns], each [rows, columns]; one that has none as it is."""
    return list(tensor.unbind(1)) if tensor.dim() == 3 else [tensor]


def _dealt(places: Sequence[Tensor], weight: PackedLinear) -> Iterator[tuple[Tensor, list[Columns]]]:
    """The segments of a weight as they fill places, [rows, columns], one after the other."""
    left = iter(segments(weight))
    for place in places:
        pieces, filled = [], 0
        while filled < place.shape[1]:
            segment = next(left)
            pieces.append((range(filled, filled + segment.num_outputs), segment))
            filled += segment.num_outputs
        assert filled == place.shape[1], "a segment goes to one place"
        yield place, pieces
