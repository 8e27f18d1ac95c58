"""How the controller has replicas started, seen and stopped, whoever does it: Ray, or plain processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shardline_cluster.fleet.gang import Gang
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.planning.rank_nodes import RankNode


@dataclass(frozen=True, slots=True)
class ReplicaObservation:
    """One replica that the launcher started or found, alive or not."""

    replica: str
    incarnation: str
    alive: bool
    had_drained: bool = False  # it exited by itself after handing everything back
    reason: str = ""  # why it is not alive
    placed: bool = True  # False while it waits for resources
    gang: Gang | None = None  # as it was started; None: by an earlier life of the launcher


class ReplicaLauncher(Protocol):
    """Places and starts replicas; never restarts one by itself, since the controller does."""

    @property
    def gives_whole_gpus(self) -> bool:
        """Whether no two replicas share a GPU."""
        ...

    def inventory(self, resource: str) -> Sequence[RankNode]:
        """The nodes that are there, with their slots of this resource. May block."""
        ...

    def start(self, spec: ReplicaSpec) -> None:
        """Begins to start a replica and returns at once.

        Raises:
            ConfigurationError: it can never be started here.
        """
        ...

    def observe(self) -> Sequence[ReplicaObservation]:
        """All replicas that were started through this launcher or an earlier life of it and were not forgotten."""
        ...

    def stop(self, incarnation: str) -> None:
        """Asks a replica to drain and exit. `observe` shows when it has."""
        ...

    def kill(self, incarnation: str) -> None:
        """Ends a replica's processes at once."""
        ...

    def forget(self, incarnation: str) -> None:
        """Drops what is known of a dead replica, with its placement."""
        ...

    def close(self) -> None:
        """Lets go of what the launcher holds. Replicas live on where the launcher's kind allows it."""
        ...
