"""Whether a replica is well: no step over its limit, and a queue that answers it."""

import time
from collections.abc import Callable

from shardline_cluster.replica.progress_watch import ProgressWatch
from shardline_cluster.replica.registration import Registration
from shardline_cluster.telemetry.metrics_server import Health


class ReplicaHealth:
    """Looks at what others keep; may be asked in any thread, while the event loop or the step thread hangs."""

    def __init__(
        self,
        watch: ProgressWatch,
        registration: Registration,
        *,
        lease_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` must be the event loop's own, as `time.monotonic` is."""
        self._watch = watch
        self._registration = registration
        self._lease_s = lease_s
        self._clock = clock

    def health(self) -> Health:
        """As of now."""
        return Health(self._failing(), {"state": self._registration.state.value})

    def _failing(self) -> str:
        now, deadline = self._clock(), self._watch.deadline()
        if deadline is not None and now > deadline:
            return f"a step takes longer than its limit of {self._watch.limit_s:.1f} s: the engine is wedged"
        silent_s = now - self._registration.heard_s
        if silent_s > self._lease_s:
            return f"the queue has answered nothing for {silent_s:.0f} s, so the lease is over"
        return ""
