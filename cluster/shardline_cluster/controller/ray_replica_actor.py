"""A replica inside a Ray actor's process. Ray places and starts it; nothing that a request waits for goes through Ray.

The replica runs on an event loop of its own, in a thread of its own: it claims, steps and commits whether or not Ray's
head, or the controller, is there. The actor's methods only tell where it is, let it drain, and wait for its end.
"""

import asyncio
import os
import threading
import time

from shardline_cluster.fleet.json_encoding import from_json
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.processes.event_loop import new_event_loop
from shardline_cluster.processes.process_identity import ProcessIdentity
from shardline_cluster.replica.replica_process import log_as_replica, prefer_steps, run_replica
from shardline_cluster.telemetry.tracer_choice import open_tracer

ORPHAN_CHECK_S = 0.5
# A collective that fails must end its process, so that the gang fails at once instead of waiting for a dead peer.
ENVIRONMENT = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}


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
        threading.Thread(target=_exit_when_orphaned, args=(os.getppid(),), daemon=True).start()
        threading.Thread(target=self._run, name="replica", daemon=True).start()

    def whereabouts(self) -> tuple[str, int, int]:
        """The fields of this process's ProcessIdentity."""
        here = ProcessIdentity.of_this_process()
        return (here.host, here.pid, here.started)

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
            end = self._loop.run_until_complete(run_replica(self._spec, stop=self._stop, tracer=tracer))
            self._drained, self._reason = end.had_drained, end.reason
        except Exception as error:
            self._reason = f"{type(error).__name__}: {error}"
        tracer.close()
        self._ended.set()


def _exit_when_orphaned(parent: int) -> None:
    """Ends this process once the raylet that started it is gone, dead but not yet reaped included.

    Ray does the same for a raylet that was reaped; after one that stays a zombie its actors would live on, unseen.
    """
    raylet = ProcessIdentity.of(parent)
    while os.getppid() == parent and not raylet.gone():
        time.sleep(ORPHAN_CHECK_S)
    os._exit(1)
