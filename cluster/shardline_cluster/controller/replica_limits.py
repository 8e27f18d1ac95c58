"""How long a replica may take for each stretch of its life before the controller gives it up."""

from dataclasses import dataclass, field

from shardline_cluster.controller.gang_planning import ReplanTimes
from shardline_cluster.fleet.replica_state import ReplicaState
from shardline_cluster.processes.back_off import BackOff
from shardline_cluster.queue.terms import QueueTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLimits:
    """Time limits in seconds. A replica that waits for resources (PENDING) has none: it is no fault of its own."""

    starting_s: float = 120.0  # from being placed to its first registration: a process and its imports
    loading_s: float = 3_600.0  # large models come over slow networks
    warming_s: float = 330.0  # the replica's own limit is 300 s; this one is for replicas that hang in it
    draining_s: float = 15.0  # a replica promises 10 s
    failed_s: float = 10.0  # from saying FAILED to being gone
    silent_s: float = 18.0  # READY, but not among the lane's members
    back_off: BackOff = field(default_factory=BackOff)
    replan: ReplanTimes = field(default_factory=ReplanTimes)

    @classmethod
    def for_terms(
        cls, terms: QueueTerms, *, warm_up_s: float = 300.0, replan: ReplanTimes | None = None
    ) -> "ReplicaLimits":
        """Limits that fit a lane's periods: silence must outlast a lease, a hold and a late heartbeat."""
        silent_s = (2 * terms.lease_ms + terms.hold_ms) / 1000
        return cls(silent_s=silent_s, warming_s=1.1 * warm_up_s, replan=replan or ReplanTimes())

    def of(self, state: ReplicaState) -> float | None:
        """How long a replica may stay in `state`; None: as long as it likes."""
        return {
            ReplicaState.STARTING: self.starting_s,
            ReplicaState.LOADING: self.loading_s,
            ReplicaState.WARMING: self.warming_s,
            ReplicaState.DRAINING: self.draining_s,
            ReplicaState.STOPPED: self.failed_s,
            ReplicaState.FAILED: self.failed_s,
        }.get(state)
