"""A rank of a gang inside a Ray actor's process: Ray starts it and tells it where its leader listens, nothing more."""

import os
import threading

from shardline_cluster.controller.actor_process import ENVIRONMENT, exit_when_orphaned
from shardline_cluster.fleet.json_encoding import from_json
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.processes.process_identity import ProcessIdentity
from shardline_cluster.replica.remote_rank import serve_rank
from shardline_cluster.telemetry.log_output import set_up_logging
from shardline_workers.gang.gang_address import GangAddress


class RankActor:
    """Made into an actor by `RayLauncher`; knows Ray only as its parent process."""

    def __init__(self, spec_json: str, rank: int) -> None:
        os.environ.update(ENVIRONMENT)  # before the engine imports torch
        self._spec, self._rank = from_json(ReplicaSpec, spec_json), rank
        set_up_logging(self._spec.telemetry, f"rank {rank}")
        self._ended = threading.Event()
        self._orderly, self._reason = False, ""
        threading.Thread(target=exit_when_orphaned, args=(os.getppid(),), daemon=True).start()

    def whereabouts(self) -> tuple[str, int, int]:
        """The fields of this process's ProcessIdentity."""
        here = ProcessIdentity.of_this_process()
        return (here.host, here.pid, here.started)

    def serve(self, leader: GangAddress) -> None:
        """Begins to be a rank of that leader."""
        threading.Thread(target=self._run, args=(leader,), name=f"rank {self._rank}", daemon=True).start()

    def ended(self) -> tuple[bool, str]:
        """Waits for the rank's end; tells whether its leader had let it go, and why it ended."""
        self._ended.wait()
        return (self._orderly, self._reason)

    def _run(self, leader: GangAddress) -> None:
        try:
            serve_rank(self._spec, leader, rank=self._rank)
            self._orderly = True
        except Exception as error:
            self._reason = f"rank {self._rank}: {type(error).__name__}: {error}"
        self._ended.set()
