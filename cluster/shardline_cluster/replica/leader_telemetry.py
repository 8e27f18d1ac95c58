"""What a leader tells of the requests that it runs: how long each stretch took, and spans in each request's trace.

    accepted ──queue──▶ claimed ──prefill──▶ first token ──decode──▶ its end, or a hand-over

The spans are siblings under the router's: a replica that is killed leaves those that it has ended whole, and whoever
goes on with the request adds its own prefill and decode to the same trace.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from prometheus_client import CollectorRegistry

from shardline_cluster.queue.calls import CommitCall
from shardline_cluster.queue.log_encoding import ID_BYTES
from shardline_cluster.queue.records import RequestState
from shardline_cluster.replica.changes import Dropped
from shardline_cluster.replica.engine_driver import Turn
from shardline_cluster.replica.held_request import HeldRequest
from shardline_cluster.replica.replica_metrics import REPLICA_LABELS, ReplicaMetrics
from shardline_cluster.telemetry.tracing import Attributes, NoTracer, Span, SpanKind, Tracer
from shardline_protos.record_pb2 import RequestPayload
from shardline_workers.engine import EngineLoad

log = logging.getLogger(__name__)

QUEUE, PREFILL, DECODE = "shardline.queue", "shardline.prefill", "shardline.decode"
_ENDS = {state.value: state for state in RequestState if state.terminal}
_REASONS = {RequestState.CANCELLED: "abort", RequestState.EXPIRED: "expired", RequestState.FAILED: "error"}


@dataclass(slots=True)
class _Life:
    """A request in this leader's hands."""

    traceparent: str
    attributes: Attributes
    began_s: float
    num_outputs: int  # sequences behind them are the prompt's
    span: Span
    first_token_s: float | None = None


class LeaderTelemetry:
    """One leader's. Belongs to the event loop."""

    def __init__(
        self,
        metrics: ReplicaMetrics | None = None,
        tracer: Tracer | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`labels` say which replica this is. Without metrics and a tracer nobody hears of it."""
        self.metrics = metrics or ReplicaMetrics(CollectorRegistry(), dict.fromkeys(REPLICA_LABELS, ""))
        self._tracer = tracer or NoTracer()
        self._attributes: Attributes = {f"shardline.{name}": value for name, value in (labels or {}).items()}
        self._clock = clock
        self._lives: dict[str, _Life] = {}  # by the request's key in the engine
        self._before_first_token: set[str] = set()

    def claimed(self, started: Iterable[HeldRequest], *, now_ms: int) -> None:
        """A claim brought these. `now_ms`: the server's clock when it granted them."""
        for request in started:
            self.metrics.claimed.inc()
            log.debug("request %s is claimed", request.id, extra={"request_id": request.id})
            if request.grant.epoch > 1:
                self.metrics.redelivered.inc()
            else:
                self.metrics.queue_s.observe(max(0, now_ms - request.info.submitted_ms) / 1000)
            self._lives[request.key] = self._begin(request)
            self._before_first_token.add(request.key)

    def took(self, turn: Turn) -> None:
        """The engine has had a turn."""
        if turn.step_s is not None:
            self.metrics.stepped(turn.result, turn.step_s)
        elif not turn.has_work:
            self.metrics.engine_holds(turn.result.load)
        if self._before_first_token:
            for step in turn.result.sequences:
                if step.token_ids and step.request_id in self._before_first_token:
                    self._first_token(step.request_id)

    def committed(self, call: CommitCall, took_s: float) -> None:
        """A commit was answered."""
        if call.entries:
            num_bytes = sum(len(sequence.ids) for entry in call.entries for sequence in entry.sequences)
            self.metrics.committed(num_bytes // ID_BYTES, took_s)

    def dropped(self, dropped: Iterable[Dropped]) -> None:
        """These requests are no longer this leader's."""
        for drop in dropped:
            self._leave(drop.request.key, drop)

    def close(self) -> None:
        """The leader ends: what it has is handed over."""
        for key in list(self._lives):
            self._leave(key, None)
        self.metrics.engine_holds(EngineLoad())

    # --- pieces --------------------------------------------------------------------------------------------------

    def _begin(self, request: HeldRequest) -> _Life:
        traceparent, num_outputs, attributes = "", len(request.sequences), self._attributes
        if self._tracer.records:
            traceparent, num_outputs = _trace_of(request)
            attributes = self._told(request, num_outputs)
            if request.grant.epoch == 1:
                submitted_ns = request.info.submitted_ms * 1_000_000
                self._span(QUEUE, traceparent, attributes, began_ns=submitted_ns).end()
        span = self._span(PREFILL, traceparent, attributes)
        return _Life(traceparent, attributes, self._clock(), num_outputs, span)

    def _first_token(self, key: str) -> None:
        self._before_first_token.discard(key)
        life = self._lives.get(key)
        if life is None:
            return
        life.first_token_s = self._clock()
        self.metrics.prefill_s.observe(life.first_token_s - life.began_s)
        life.span.end()
        life.span = self._span(DECODE, life.traceparent, life.attributes)

    def _leave(self, key: str, drop: Dropped | None) -> None:
        self._before_first_token.discard(key)
        life = self._lives.pop(key, None)
        if life is None:
            return
        if life.first_token_s is not None:
            self.metrics.decode_s.observe(self._clock() - life.first_token_s)
        state = _ENDS.get(drop.reason) if drop is not None else None
        if drop is None or state is None:
            self.metrics.handed_over.inc()
            life.span.set({"shardline.handed_over": True})
            life.span.end()
            return
        reason = _finished_reason(drop.request, state)
        self.metrics.ended(reason)
        num_tokens = sum(sequence.num_tokens for sequence in drop.request.sequences[: life.num_outputs])
        life.span.set({"gen_ai.response.finish_reasons": [reason], "gen_ai.usage.output_tokens": num_tokens})
        life.span.end(error="FAILED" if state is RequestState.FAILED else "")

    def _span(self, name: str, traceparent: str, attributes: Attributes, *, began_ns: int | None = None) -> Span:
        return self._tracer.start(
            name, parent=traceparent, kind=SpanKind.CONSUMER, attributes=attributes, began_ns=began_ns
        )

    def _told(self, request: HeldRequest, num_outputs: int) -> Attributes:
        submission = request.info.submission
        return {
            **self._attributes,
            "gen_ai.request.model": str(self._attributes.get("shardline.model_name", "")),
            "gen_ai.request.max_tokens": submission.max_tokens,
            "gen_ai.usage.input_tokens": submission.prompt_tokens,
            "shardline.request.id": request.id,
            "shardline.request.attempt": request.grant.epoch,
            "shardline.request.resumed_tokens": sum(
                sequence.num_tokens for sequence in request.sequences[:num_outputs]
            ),
        }


def _trace_of(request: HeldRequest) -> tuple[str, int]:
    """The request's traceparent, and how many of its sequences are outputs."""
    try:
        payload = RequestPayload.FromString(request.info.submission.payload)
    except DecodeError:  # the request fails for it
        return "", len(request.sequences)
    return payload.traceparent, len(request.sequences) - payload.sampling.HasField("prompt_logprobs")


def _finished_reason(request: HeldRequest, state: RequestState) -> str:
    told = _REASONS.get(state)
    if told is not None:
        return told
    return next((sequence.finish.reason for sequence in request.sequences if sequence.finish is not None), "stop")
