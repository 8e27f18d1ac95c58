"""Restores and releases that a leader has still to send, or has sent and not yet seen answered."""

from shardline_cluster.queue.calls import RestoreCall
from shardline_cluster.queue.records import Grant
from shardline_cluster.replica.held_request import HeldRequest
from shardline_cluster.replica.recent_ends import RecentEnd


class Errands:
    """What goes out beside claims and commits. A restore that waits already is not queued twice."""

    def __init__(self, incarnation: str) -> None:
        self._incarnation = incarnation
        self._restores: dict[tuple[str, bool], HeldRequest | RecentEnd] = {}
        self._num_restoring = 0
        self._releases: set[tuple[str, Grant]] = set()
        self._releasing: set[tuple[str, Grant]] = set()

    @property
    def pending(self) -> bool:
        """Whether anything waits or is in flight."""
        return bool(self._restores or self._num_restoring or self._releases or self._releasing)

    @property
    def waiting(self) -> bool:
        """Whether anything waits to be sent."""
        return bool(self._restores or self._releases)

    def restore(self, what: HeldRequest | RecentEnd) -> None:
        """Queues the restore of a grant or of an end."""
        self._restores[what.info.id, isinstance(what, RecentEnd)] = what

    def release(self, request_id: str, grant: Grant) -> None:
        """Queues a release."""
        self._releases.add((request_id, grant))

    def is_releasing(self, request_id: str, grant: Grant) -> bool:
        """Whether this grant is on its way back."""
        return (request_id, grant) in self._releases or (request_id, grant) in self._releasing

    def take_restores(self) -> list[RestoreCall]:
        """Restores that are to be sent now, with what is known by now."""
        calls = [self._call(what) for what in self._restores.values()]
        self._restores.clear()
        self._num_restoring += len(calls)
        return calls

    def take_releases(self) -> list[tuple[str, Grant]]:
        """Grants that are to be handed back now."""
        grants = sorted(self._releases, key=lambda pair: pair[0])
        self._releases.clear()
        self._releasing.update(grants)
        return grants

    def restored(self) -> None:
        """One restore was answered."""
        self._num_restoring -= 1

    def released(self, grants: list[tuple[str, Grant]]) -> None:
        """These releases were answered."""
        self._releasing.difference_update(grants)

    def _call(self, what: HeldRequest | RecentEnd) -> RestoreCall:
        if isinstance(what, RecentEnd):
            return RestoreCall(incarnation=self._incarnation, info=what.info, logs=what.logs, end=what.end)
        return RestoreCall(incarnation=self._incarnation, info=what.info, logs=what.logs(), grant=what.grant)
