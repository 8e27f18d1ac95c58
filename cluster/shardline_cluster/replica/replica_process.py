"""The life of a replica: LOADING → WARMING → READY → DRAINING → STOPPED, or FAILED from anywhere.

`run_replica` is that life on whichever event loop; `main` is a process around it, for the local launcher:

    SHARDLINE_REPLICA_SPEC='{…}' python -m shardline_cluster.replica.replica_process
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import CollectorRegistry

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.exporters import ExporterKind, ExporterList
from shardline_cluster.fleet.json_encoding import from_json
from shardline_cluster.fleet.process_exporter import exporting
from shardline_cluster.fleet.redis_exporters import RedisExporterList
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.fleet.replica_state import ReplicaState
from shardline_cluster.processes.event_loop import new_event_loop
from shardline_cluster.queue.redis_request_queue import RedisRequestQueue
from shardline_cluster.queue.request_queue import RequestQueue
from shardline_cluster.replica.engine_choice import LoadedModel, Report, load_model
from shardline_cluster.replica.engine_driver import EngineDriver
from shardline_cluster.replica.leader import Leader, ReplicaFailedError
from shardline_cluster.replica.leader_telemetry import LeaderTelemetry
from shardline_cluster.replica.progress_watch import ProgressWatch
from shardline_cluster.replica.registration import Registration
from shardline_cluster.replica.replica_health import ReplicaHealth
from shardline_cluster.replica.replica_metrics import ReplicaMetrics, replica_labels
from shardline_cluster.replica.step_thread import DaemonStepThread, StepThread
from shardline_cluster.telemetry.log_output import last_words, set_up_logging
from shardline_cluster.telemetry.tracer_choice import open_tracer
from shardline_cluster.telemetry.tracing import NoTracer, Tracer
from shardline_workers.load_times import LoadTimes
from shardline_workers.text.text_model import TextModel

SPEC_VARIABLE = "SHARDLINE_REPLICA_SPEC"
CLOSE_S = 1.0
LAST_WORDS_S = 1.0  # to tell the queue how it ended; the exit code says it too

T = TypeVar("T")
QueueFactory = Callable[[ReplicaSpec], RequestQueue]
ExportersFactory = Callable[[ReplicaSpec], ExporterList]
ModelLoader = Callable[[ReplicaSpec, Report], LoadedModel]

SWITCH_INTERVAL_S = 0.0005  # more than the step thread needs of the interpreter between two runs of its kernels

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplicaExit:
    """How a replica's life ended."""

    had_drained: bool  # everything was handed back, nothing is to be reclaimed
    reason: str = ""


class _StoppedEarlyError(Exception):
    """Told to stop before it served: nothing is held yet."""


def open_redis_queue(spec: ReplicaSpec) -> RequestQueue:
    """The lane of a replica's deployment in its Redis."""
    return RedisRequestQueue(spec.redis_url, spec.deployment.lane, prefix=spec.prefix, terms=spec.terms)


def open_redis_exporters(spec: ReplicaSpec) -> ExporterList:
    """Where a replica announces its metrics."""
    return RedisExporterList(spec.redis_url, prefix=spec.prefix)


async def run_replica(
    spec: ReplicaSpec,
    *,
    stop: asyncio.Event,
    queue_factory: QueueFactory = open_redis_queue,
    exporters_factory: ExportersFactory = open_redis_exporters,
    model_loader: ModelLoader = load_model,
    thread: StepThread | None = None,
    tracer: Tracer | None = None,
) -> ReplicaExit:
    """Lives a replica's life until `stop` is set, the queue says drain, or it fails. Raises nothing of its own.

    Installs no signal handlers and may run in any thread. After a failure the step thread may be wedged for ever: it is
    a daemon, but the process should end soon.
    """
    queue = queue_factory(spec)
    life = _Life(spec, queue, thread or DaemonStepThread(), tracer=tracer or NoTracer())
    try:
        async with life.exporting(exporters_factory(spec)):
            driver, text = await life.load(model_loader, stop)
            await life.serve(driver, text, stop)
            await _close(driver)
        end = ReplicaExit(had_drained=True)
    except _StoppedEarlyError:
        end = ReplicaExit(had_drained=True, reason="told to stop before it was ready")
    except Exception as error:
        end = ReplicaExit(had_drained=False, reason=_in_words(error))
        _LOG.error("failed: %s", end.reason, exc_info=not isinstance(error, ReplicaFailedError | ConfigurationError))
    await life.tell_end(end)
    await queue.close()
    return end


class _Life:
    """The stages of one replica's life."""

    def __init__(self, spec: ReplicaSpec, queue: RequestQueue, thread: StepThread, *, tracer: Tracer) -> None:
        self._spec = spec
        self._queue = queue
        self._thread = thread
        self._registration = Registration(queue, spec)
        self._watch = ProgressWatch(least_limit_s=spec.step_limit_s)
        self._registry = CollectorRegistry()
        labels = replica_labels(spec)
        self._telemetry = LeaderTelemetry(ReplicaMetrics(self._registry, labels), tracer, labels=labels)

    def exporting(self, exporters: ExporterList) -> AbstractAsyncContextManager[str]:
        """Lets others read how it is, from the first moment on."""
        health = ReplicaHealth(self._watch, self._registration, lease_s=self._spec.terms.lease_ms / 1000)
        return exporting(
            ExporterKind.REPLICA,
            self._registry,
            config=self._spec.telemetry,
            exporters=exporters,
            health=health.health,
        )

    async def load(self, loader: ModelLoader, stop: asyncio.Event) -> tuple[EngineDriver, TextModel]:
        """Registers, so that a fresh server's hold runs meanwhile, loads the model and warms it up."""
        keeping = asyncio.create_task(self._registration.keep())
        try:
            _LOG.info("loading %s", self._spec.deployment.model)
            driver, model = await _unless(stop, self._thread.run(lambda: self._load(loader)))
            self._registration.describe(driver.description)
            self._registration.took(model.load_s)
            await _unless(stop, self._registration.tell(ReplicaState.WARMING))
            times = LoadTimes()
            with times.phase("first request"):
                await _unless(stop, self._warm_up(driver))
            self._registration.took(times.seconds)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        return driver, model.text

    async def serve(self, driver: EngineDriver, text: TextModel, stop: asyncio.Event) -> None:
        """Is READY, and serves until drained."""
        # What was loaded stays for life: collections that looked through all of it would stop steps for long.
        gc.freeze()
        await _unless(stop, self._registration.tell(ReplicaState.READY))
        _LOG.info("ready: %s", ", ".join(f"{k} {v}" for k, v in sorted(driver.description.details.items())))
        leader = Leader(
            self._queue,
            self._registration,
            driver=driver,
            watch=self._watch,
            text=text,
            incarnation=self._spec.incarnation,
            telemetry=self._telemetry,
        )
        await leader.run(stop)

    async def tell_end(self, end: ReplicaExit) -> None:
        """Registers STOPPED or FAILED, if the queue answers soon.

        Not after a failure while it served: registering would renew the lease of what it holds and put off its reclaim.
        """
        if not end.had_drained and self._registration.state in (ReplicaState.READY, ReplicaState.DRAINING):
            return
        state = ReplicaState.STOPPED if end.had_drained else ReplicaState.FAILED
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._registration.tell(state, reason=end.reason)

    def _load(self, loader: ModelLoader) -> tuple[EngineDriver, LoadedModel]:
        """In the step thread, to which the engine belongs."""
        model = loader(self._spec, _LOG.info)
        return EngineDriver(model.engine, self._thread, self._watch), model

    async def _warm_up(self, driver: EngineDriver) -> None:
        limit_s = self._spec.warm_up_limit_s
        try:
            async with asyncio.timeout(limit_s):
                await driver.warm_up()
        except TimeoutError as error:
            raise ReplicaFailedError(f"warming up took longer than its limit of {limit_s:.0f} s") from error


async def _unless(stop: asyncio.Event, wait: Awaitable[T]) -> T:
    """Awaits, unless told to stop first.

    Raises:
        _StoppedEarlyError: `stop` was set.
    """
    work, stopping = asyncio.ensure_future(wait), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise _StoppedEarlyError
        return work.result()
    finally:
        work.cancel()
        stopping.cancel()
        await asyncio.gather(work, stopping, return_exceptions=True)


async def _close(driver: EngineDriver) -> None:
    """Closes the engine. What goes wrong here is only told: everything was handed back already."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await driver.close()
    except Exception as error:
        _LOG.warning("the engine did not close: %s", _in_words(error))


def _in_words(error: Exception) -> str:
    if isinstance(error, ReplicaFailedError | ConfigurationError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def prefer_steps() -> None:
    """Lets the step thread have the interpreter soon after its kernels are done, however busy the event loop is.

    By default a thread may keep it for 5 ms: more than a whole step of a small model.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def log_as_replica(spec: ReplicaSpec) -> None:
    """Sets this process's logging up."""
    fields = {"replica": spec.replica, "lane": spec.deployment.lane, "model": spec.deployment.name}
    set_up_logging(spec.telemetry, "replica", name=spec.replica, fields=fields)


def main() -> None:
    """Runs the replica that the environment describes; SIGTERM drains it. Exits with 0 only after a drain."""
    try:
        spec = from_json(ReplicaSpec, os.environ[SPEC_VARIABLE])
    except KeyError:
        sys.exit(f"{SPEC_VARIABLE} is not set, but must hold the replica's spec as JSON")
    except ConfigurationError as error:
        sys.exit(f"{SPEC_VARIABLE} is wrong: {error}")
    log_as_replica(spec)
    prefer_steps()
    tracer = open_tracer("replica", os.environ)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        end = runner.run(_run_until_signalled(spec, tracer))
    tracer.close()
    if not end.had_drained:
        last_words(end.reason, spec.telemetry.log_format)
    sys.stderr.flush()
    os._exit(0 if end.had_drained else 1)  # the step thread may be busy in native code: no orderly exit survives that


async def _run_until_signalled(spec: ReplicaSpec, tracer: Tracer) -> ReplicaExit:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return await run_replica(spec, stop=stop, tracer=tracer)


if __name__ == "__main__":
    main()
