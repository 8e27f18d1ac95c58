"""Desired deployments for those who act on them: one that vanishes from the store is missed for a while first.

A server that forgets its last writes, or all of them, forgets deployments too. Whoever runs one puts it back within
a second or two (`shardline serve` does): until then no replica is stopped for it, and no client is told that its model
does not exist. Pure: given what was read and when.
"""

from collections.abc import Mapping

from shardline_cluster.fleet.deployment import Deployment

KEPT_S = 10.0  # long enough for a server that restarts and is told again; short enough for one that was taken away


class LastingDeployments:
    """What the store says, and for `kept_s` seconds what it said before."""

    def __init__(self, *, kept_s: float = KEPT_S) -> None:
        self._kept_s = kept_s
        self._missing: dict[str, tuple[Deployment, float]] = {}  # by name: as it was, and when it was first missed
        self._last: Mapping[str, Deployment] = {}

    def seen(self, stored: Mapping[str, Deployment], now_s: float) -> Mapping[str, Deployment]:
        """Deployments by name. `now_s` is the instant of reading, on a clock that never goes back."""
        vanished = {name: (deployment, now_s) for name, deployment in self._last.items() if name not in stored}
        missing = {name: (d, since) for name, (d, since) in (vanished | self._missing).items() if name not in stored}
        self._missing = {name: (d, since) for name, (d, since) in missing.items() if now_s - since < self._kept_s}
        self._last = stored
        return {**stored, **{name: deployment for name, (deployment, _) in self._missing.items()}}
