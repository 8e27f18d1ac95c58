"""What a router counts: calls, streams, and the times that clients see.

Times are those of this router's clock, from the arrival of a call to what is given to gRPC. Each router counts the
streams that go through it: a request that a client resumes elsewhere is told by both, its first token by one.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric

from shardline_cluster.errors import ShardlineError
from shardline_cluster.queue.log_encoding import ID_BYTES
from shardline_cluster.queue.records import RequestEnd, RequestState
from shardline_cluster.router.streams.stream_reader import StreamUpdate
from shardline_cluster.telemetry.instruments import PREFIX, Instruments
from shardline_cluster.telemetry.token_histogram import TokenSeries

# Seconds. Finer where people notice: a first token within a second, a token within reading speed.
FIRST_TOKEN_BOUNDS = (
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
    160,
    640,
)
INTER_TOKEN_BOUNDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.75,
    1,
    2.5,
    5,
    10,
)
REQUEST_BOUNDS = (0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)

ABORT = "abort"  # vLLM's word for a request that was ended before its end
FINISHED_REASONS = {RequestState.CANCELLED: ABORT, RequestState.EXPIRED: "expired", RequestState.FAILED: "error"}
UNEXPECTED = "Unexpected"
CLIENT_LEFT = "client_left"


class RouterMetrics:
    """All of them, in one registry. Belongs to the event loop."""

    def __init__(self, registry: CollectorRegistry, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        make = Instruments(registry)
        self.accepted = make.counter(
            "requests_accepted", "Requests that were accepted: durable from here on.", "model_name"
        )
        self.errors = make.counter(
            "errors", "Calls that ended with an error, refused requests among them.", "code", "reason"
        )
        self.open_streams = make.gauge("open_streams", "Streams that clients read right now.", "model_name")
        self.resumes = make.counter("resumes", "Streams that were opened by Resume, after a cursor.", "model_name")
        self.stream_ends = make.counter(
            "stream_ends",
            "Streams by their end: a finished_reason of the request, client_left, or error.",
            "model_name",
            "end",
        )
        self.text_errors = make.counter(
            "text_errors", "Prompts that could not become tokens, and tokens that could not become text.", "model_name"
        )
        self.first_token = make.histogram(
            "time_to_first_token_seconds",
            "From the arrival of Generate to the request's first token.",
            "model_name",
            bounds=FIRST_TOKEN_BOUNDS,
        )
        self.inter_token = make.token_histogram(
            "inter_token_latency_seconds",
            "Between tokens of a stream; those that come together share the time since the ones before.",
            "model_name",
            bounds=INTER_TOKEN_BOUNDS,
        )
        self.whole_request = make.histogram(
            "e2e_request_latency_seconds",
            "From the arrival of Generate to the request's end, as its client saw it.",
            "model_name",
            bounds=REQUEST_BOUNDS,
        )
        self.available = make.gauge("queue_available", "Whether Redis answers this router: 1 or 0.")

    def know(self, model: str) -> None:
        """A model is deployed: its series begin at zero, so that their first increase shows."""
        for family in (self.accepted, self.open_streams, self.resumes, self.text_errors, self.first_token):
            family.labels(model)
        self.whole_request.labels(model)
        self.inter_token.series(model)

    def failed(self, error: Exception) -> None:
        """A call ended with an error."""
        if isinstance(error, ShardlineError):
            self.errors.labels(error.code, type(error).__name__.removesuffix("Error")).inc()
        else:
            self.errors.labels("INTERNAL", UNEXPECTED).inc()

    def malformed(self) -> None:
        """A request was no message of the protocol."""
        self.errors.labels("INVALID_ARGUMENT", "Malformed").inc()

    @contextmanager
    def text_of(self, model: str) -> Iterator[None]:
        """Counts what goes wrong with text inside the block."""
        try:
            yield
        except Exception:
            self.text_errors.labels(model).inc()
            raise


class StreamMeter:
    """Measures one stream. `began_s` None: it resumes, so that its first token says nothing."""

    def __init__(self, metrics: RouterMetrics, model: str, *, began_s: float | None) -> None:
        self._metrics = metrics
        self._model = model
        self._began_s = began_s
        self._last_s: float | None = None  # when tokens came last
        self._inter_token: TokenSeries = metrics.inter_token.series(model)
        self._end = CLIENT_LEFT
        metrics.open_streams.labels(model).inc()

    def saw(self, update: StreamUpdate) -> bool:
        """An update goes to the client. Whether the request's first token was in it."""
        num_tokens = sum(len(sequence.ids) for sequence in update.sequences) // ID_BYTES
        is_first = False
        if num_tokens:
            now_s = self._metrics.clock()
            if self._last_s is not None:
                self._inter_token.observe((now_s - self._last_s) / num_tokens, num_tokens)
            elif self._began_s is not None:
                is_first = True
                self._metrics.first_token.labels(self._model).observe(now_s - self._began_s)
            self._last_s = now_s
        if update.end is not None:
            self._ended(update.end)
        return is_first

    def failed(self) -> None:
        """The stream ends with an error."""
        self._end = "error" if self._end == CLIENT_LEFT else self._end

    def close(self) -> None:
        """The stream is over."""
        self._metrics.open_streams.labels(self._model).dec()
        self._metrics.stream_ends.labels(self._model, self._end).inc()

    def _ended(self, end: RequestEnd) -> None:
        self._end = finished_reason(end)
        if self._began_s is not None:
            self._metrics.whole_request.labels(self._model).observe(self._metrics.clock() - self._began_s)


def finished_reason(end: RequestEnd) -> str:
    """How a request ended, in vLLM's words: of several outputs the first one's."""
    told = FINISHED_REASONS.get(end.state)
    if told is not None:
        return told
    return next((finish.reason for finish in end.finishes if finish is not None), "stop")


class LaneReadings:
    """Tells how often each lane's logs were read. A collector: asks when somebody scrapes."""

    def __init__(self, registry: CollectorRegistry, attaches: Callable[[], Mapping[str, int]]) -> None:
        """`attaches`: readings by lane; called in other threads."""
        self._attaches = attaches
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        family = self._family()
        for lane, number in self._attaches().items():
            family.add_metric([lane], number)
        return (family,)

    def describe(self) -> Iterable[Metric]:
        """For the registry: names without values."""
        return (self._family(),)

    def _family(self) -> CounterMetricFamily:
        text = "Readings of a request's log from the queue: one a stream, and one more where something was missed."
        return CounterMetricFamily(PREFIX + "attaches", text, labels=["lane"])
