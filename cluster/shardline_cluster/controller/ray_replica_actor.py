"""A replica inside a Ray actor's process. Ray places and starts it; nothing that a request waits for goes through Ray.

The replica runs on an event loop of its own, in a thread of its own: it claims, steps and commits whether or not Ray's
head, or the controller, is there. The actor's methods only tell where it is, let it drain, and wait for its end.
"""

import asyncio
import os
import threading
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from shardline_cluster.controller.actor_process import ENVIRONMENT, exit_when_orphaned
from shardline_cluster.fleet.json_encoding import from_json
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.processes.event_loop import new_event_loop
from shardline_cluster.processes.process_identity import ProcessIdentity
from shardline_cluster.replica.engine_choice import Report, load_model
from shardline_cluster.replica.replica_process import log_as_replica, prefer_steps, run_replica
from shardline_cluster.telemetry.tracer_choice import open_tracer
from shardline_workers.gang.gang_address import GangAddress

if TYPE_CHECKING:
    from shardline_workers.gang.rank_pool import RankPool


class ReplicaActor:
    """Made into an actor by `RayLauncher`; knows Ray only as its parent process."""

    def __init__(self, spec_json: str) -> None:
        os.environ.update(ENVIRONMENT)  # before the engine imports torch
        self._spec = from_json(ReplicaSpec, spec_json)
        log_as_replica(self._spec)
        self._loop = new_event_loop()
        self._stop = asyncio.Event()
        self._ended = threading.Event()
        self._drained, self._reason = False, ""
        self._pool: Future[RankPool] = Future()
        threading.Thread(target=exit_when_orphaned, args=(os.getppid(),), daemon=True).start()
        threading.Thread(target=self._run, name="replica", daemon=True).start()

    def whereabouts(self) -> tuple[str, int, int]:
        """The fields of this process's ProcessIdentity."""
        here = ProcessIdentity.of_this_process()
        return (here.host, here.pid, here.started)

    def gang_address(self) -> GangAddress:
        """Where this leader waits for its ranks; waits until it does, which a simulated engine never does.

        Raises:
            RuntimeError: it ended before.
        """
        return self._pool.result().address

    def ended(self) -> tuple[bool, str]:
        """Waits for the replica's end; tells whether it had drained, and why it ended."""
        self._ended.wait()
        return (self._drained, self._reason)

    def stop(self) -> None:
        """Lets the replica hand back what it holds and end."""
        self._loop.call_soon_threadsafe(self._stop.set)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        prefer_steps()
        tracer = open_tracer("replica", os.environ)
        try:
            loader = partial(load_model, open_pool=self._open_pool)
            life = run_replica(self._spec, stop=self._stop, tracer=tracer, model_loader=loader)
            end = self._loop.run_until_complete(life)
            self._drained, self._reason = end.had_drained, end.reason
        except Exception as error:
            self._reason = f"{type(error).__name__}: {error}"
        tracer.close()
        with suppress(InvalidStateError):  # ranks have heard long ago
            self._pool.set_exception(RuntimeError(f"the leader has ended: {self._reason}"))
        self._ended.set()
        if self._pool.exception() is None:
            self._pool.result().close()

    def _open_pool(self, report: Report) -> "RankPool":
        """Listens for the ranks, which other actors are."""
        from shardline_workers.gang.rank_pool import LOOPBACK, RankPool  # brings torch

        bundles = self._spec.gang.bundles
        is_one_host = len({bundle.host for bundle in bundles}) == 1
        pool = RankPool(host=LOOPBACK if is_one_host else bundles[0].host, report=report)
        self._pool.set_result(pool)
        return pool
