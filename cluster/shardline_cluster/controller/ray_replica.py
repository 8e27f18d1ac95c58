"""One replica as the Ray launcher knows it: being placed, running, or ended; and how that is seen without Ray's head.

An actor's end shows in the answer to a call that waits for it (`ReplicaActor.ended`): it comes straight from the
actor's process. While Ray's head is away a broken connection only says "unavailable"; then the process itself is looked
for, which works on its own host, and elsewhere the lane's lease says the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError

from shardline_cluster.controller.replica_launcher import ReplicaObservation
from shardline_cluster.fleet.gang import Gang
from shardline_cluster.processes.process_identity import ProcessIdentity

LONGEST_REASON = 400  # characters
ANSWER_S = 1.0  # an answer that has arrived is read within this


@dataclass(slots=True)
class RayReplica:
    """The launcher's own record; one thread at a time looks at it, apart from `cancelled`."""

    replica: str
    incarnation: str
    gang: Gang | None = None  # None: an earlier life of the launcher started it
    handle: Any = None  # of the leader's actor; None while it is being placed
    ranks: dict[int, Any] = field(default_factory=dict)  # actors of the other ranks, as far as they are actors
    placed: bool = False
    cancelled: bool = False  # stopped or killed before it was placed
    process: ProcessIdentity | None = None
    _whereabouts: Any = None  # answers that have not come yet
    _end: Any = None
    _rank_ends: dict[int, Any] = field(default_factory=dict)
    _observation: ReplicaObservation | None = field(default=None)  # once it has ended

    def run_as(self, handle: Any, ranks: Mapping[int, Any]) -> None:
        """The actors were made, or found again."""
        self.ranks = dict(ranks)
        self._rank_ends = {rank: actor.ended.remote() for rank, actor in self.ranks.items()}
        self._whereabouts, self._end = handle.whereabouts.remote(), handle.ended.remote()
        self.handle, self.placed = handle, True

    def end(self, reason: str, *, had_drained: bool = False) -> None:
        """It is gone, for this reason."""
        self._observation = ReplicaObservation(
            self.replica, self.incarnation, alive=False, had_drained=had_drained, reason=reason
        )

    def observe(self) -> ReplicaObservation:
        """How it stands, from answers that are here already; never waits for Ray's head."""
        if self._observation is None and self.handle is not None:
            self._learn_whereabouts()
            self._learn_end()
            self._learn_rank_ends()
        if self._observation is not None:
            return self._observation
        return ReplicaObservation(self.replica, self.incarnation, alive=True, placed=self.placed, gang=self.gang)

    def _learn_whereabouts(self) -> None:
        if self._whereabouts is None or not _arrived(self._whereabouts):
            return
        answer, self._whereabouts = self._whereabouts, None
        try:
            self.process = ProcessIdentity(*ray.get(answer, timeout=ANSWER_S))
        except (RayError, GetTimeoutError):
            return  # it has ended, or will be asked by `ended` alone: the whereabouts are only for outages

    def _learn_end(self) -> None:
        if not _arrived(self._end):
            return
        try:
            had_drained, reason = ray.get(self._end, timeout=ANSWER_S)
            self.end(reason, had_drained=had_drained)
        except ActorUnavailableError:
            self._ask_again()
        except RayActorError as error:
            self.end(_in_a_line(error))

    def _learn_rank_ends(self) -> None:
        """A gang that has lost a rank is dead, whatever its leader still does."""
        for rank, end in list(self._rank_ends.items()):
            if self._observation is not None or not _arrived(end):
                continue
            del self._rank_ends[rank]
            try:
                was_dismissed, reason = ray.get(end, timeout=ANSWER_S)
            except ActorUnavailableError:
                self._rank_ends[rank] = self.ranks[rank].ended.remote()
            except RayActorError as error:
                self._lose(f"rank {rank} is lost: {_in_a_line(error)}")
            else:
                if not was_dismissed:
                    self._lose(reason)

    def _lose(self, reason: str) -> None:
        self.kill()
        self.end(reason)

    def kill(self) -> None:
        """Ends all processes at once; on this host that works without Ray's head."""
        if self.process is not None:
            self.process.kill()
        for actor in (self.handle, *self.ranks.values()):
            if actor is not None:
                ray.kill(actor)

    def _ask_again(self) -> None:
        """The connection broke and nobody knows more: the process tells, or the next answer does."""
        if self.process is not None and self.process.gone():
            self.end("its process is gone")
        else:
            self._end = self.handle.ended.remote()


def _arrived(answer: Any) -> bool:
    ready, _ = ray.wait([answer], timeout=0)
    return bool(ready)


def _in_a_line(error: Exception) -> str:
    """What happened, without the facts about the actor before it and Ray's guesses after it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = lines[-1].partition(" Some common causes include")[0] if lines else type(error).__name__
    return told[:LONGEST_REASON]
