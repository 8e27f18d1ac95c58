"""What a router tells of each request: metrics and a span, from the arrival of the call to its end."""

import logging
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry

from shardline_cluster.errors import ShardlineError
from shardline_cluster.queue.answers import Accepted, Duplicate
from shardline_cluster.router.router_metrics import RouterMetrics, StreamMeter, finished_reason
from shardline_cluster.router.streams.stream_reader import StreamUpdate
from shardline_cluster.telemetry.tracing import NoTracer, Span, SpanKind, Tracer
from shardline_protos import generation_pb2 as pb

log = logging.getLogger(__name__)

RESUME = "shardline.resume"


def _metrics_of_nobody() -> RouterMetrics:
    return RouterMetrics(CollectorRegistry())


@dataclass(frozen=True, slots=True)
class RouterTelemetry:
    """One router's; by default nobody reads it."""

    metrics: RouterMetrics = field(default_factory=_metrics_of_nobody)
    tracer: Tracer = field(default_factory=NoTracer)

    def generate(self, request: pb.GenerateRequest, model: str, traceparent: str) -> "RequestWatch":
        """A Generate has come. `model`: the deployment's name."""
        operation = "chat" if request.WhichOneof("prompt") == "chat" else "text_completion"
        span = self.tracer.start(
            f"{operation} {model}",
            parent=traceparent,
            kind=SpanKind.SERVER,
            attributes={"gen_ai.operation.name": operation, "gen_ai.request.model": model},
        )
        return RequestWatch(self.metrics, span, began_s=self.metrics.clock())

    def resume(self, request_id: str, traceparent: str) -> "RequestWatch":
        """A Resume has come."""
        span = self.tracer.start(RESUME, parent=traceparent, kind=SpanKind.SERVER)
        span.set({"shardline.request.id": request_id})
        return RequestWatch(self.metrics, span, began_s=None)


class RequestWatch:
    """One call. Leaving its block ends what was begun, saying how."""

    def __init__(self, metrics: RouterMetrics, span: Span, *, began_s: float | None) -> None:
        """`began_s`: when the call came; None: its tokens are not the first ones."""
        self._metrics = metrics
        self._span = span
        self._began_s = began_s
        self._meter: StreamMeter | None = None
        self._finish = ""
        self._num_tokens = 0
        self._num_outputs = 0

    @property
    def traceparent(self) -> str:
        """For those who work on the request."""
        return self._span.traceparent

    def accepted(self, answer: Accepted | Duplicate, model: str) -> None:
        """The request is durable, or was so already: then its tokens may be older than this call."""
        if isinstance(answer, Accepted):
            self._metrics.accepted.labels(model).inc()
        else:
            self._began_s = None
        self._span.event("accepted")
        log.debug("accepted", extra={"model": model})
        tokens = answer.info.submission.prompt_tokens
        self._span.set({"shardline.request.id": answer.info.id, "gen_ai.usage.input_tokens": tokens})

    def opened(self, model: str, *, num_outputs: int, resumed: bool) -> None:
        """Its client reads from now on; sequences behind the outputs are the prompt's."""
        self._num_outputs = num_outputs
        self._meter = StreamMeter(self._metrics, model, began_s=self._began_s)
        if resumed:
            self._metrics.resumes.labels(model).inc()

    def saw(self, update: StreamUpdate) -> None:
        """An update goes to the client."""
        assert self._meter is not None, "a stream is opened before it is read"
        if self._meter.saw(update):
            self._span.event("first token")
        if update.end is not None:
            self._finish = finished_reason(update.end)
            self._num_tokens = sum(update.end.offsets[: self._num_outputs])
            self._span.event("finish")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        failure = error if isinstance(error, Exception) else None  # else its client left, or nothing went wrong
        if self._meter is not None:
            if failure is not None:
                self._meter.failed()
            self._meter.close()
        if self._finish:
            self._span.set(
                {"gen_ai.response.finish_reasons": [self._finish], "gen_ai.usage.output_tokens": self._num_tokens}
            )
        reason = _reason(failure)
        log.debug("the call ends: %s", reason or self._finish or ("its client left" if self._meter else "no stream"))
        self._span.end(error=reason)


def _reason(failure: Exception | None) -> str:
    """Why a call failed, without what its client wrote: a message may quote a field."""
    if failure is None:
        return ""
    return f"{failure.code} {type(failure).__name__}" if isinstance(failure, ShardlineError) else type(failure).__name__
