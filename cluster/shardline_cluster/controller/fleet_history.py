"""What the controller remembers from round to round: how each replica fared, and how often each place failed. Pure.

Nothing here must outlive the controller. After its restart the limits and the back-off begin anew; which replicas run
is observed, never remembered.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from shardline_cluster.controller.replica_launcher import ReplicaObservation
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.gang import Gang
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_cluster.planning.rank_nodes import RankNode
from shardline_cluster.processes.back_off import BackOff

LONGEST_ROUND_S = 2.0  # a longer pause between two rounds (an outage) says nothing about a replica's silence


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRound:
    """Everything that was observed in one round."""

    desired: tuple[Deployment, ...]
    observed: tuple[ReplicaObservation, ...]
    statuses: Mapping[str, ReplicaStatus]  # by incarnation: all members of all lanes that are watched
    now_s: float  # of a clock that never jumps
    back_off: BackOff = field(default_factory=BackOff)
    nodes: tuple[RankNode, ...] | None = ()  # that ranks may run on; None: nobody knows just now

    @property
    def settings(self) -> Mapping[str, str]:
        """Of each lane's deployment."""
        return {deployment.lane: deployment.settings for deployment in self.desired}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLife:
    """How one incarnation has fared so far."""

    place: str
    state: ReplicaState
    since_s: float  # when it was first seen in this state
    alive: bool = True  # its process is there, whatever it says of itself
    reason: str = ""  # why it failed, as it said itself
    heard: bool = False  # it has registered at least once
    silent_s: float = 0.0  # how long it has been missing from its lane after it had been heard
    was_ready: bool = False
    settings: str = ""  # what it was built from; see Deployment.settings
    stop_asked: bool = False
    gang: Gang | None = None  # its ranks; None: not known yet
    placed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceHistory:
    """How often a place's replicas failed in a row, why, and until when the place rests."""

    failures: int = 0
    not_before_s: float = 0.0
    reason: str = ""
    settings: str = ""  # with which it failed


@dataclass(frozen=True, slots=True, kw_only=True)
class GangWait:
    """A place whose replica cannot run in its full shape, or could again."""

    missing_since_s: float | None = None  # the place is empty, and there has been no room for the full shape
    returned_since_s: float | None = None  # its replica is smaller, and there has been room for the full shape
    reason: str = ""  # what is missing


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetHistory:
    """The memory of all rounds so far."""

    now_s: float = float("-inf")  # of the last round
    lives: Mapping[str, ReplicaLife] = field(default_factory=dict)  # by incarnation, of whatever is observed
    places: Mapping[str, PlaceHistory] = field(default_factory=dict)  # by name of the place
    gangs: Mapping[str, GangWait] = field(default_factory=dict)  # by name of the place

    def place(self, name: str) -> PlaceHistory:
        """What is known of a place; nothing bad, where nothing is."""
        return self.places.get(name, PlaceHistory())


def remember(history: FleetHistory, fleet: FleetRound) -> FleetHistory:
    """The history after one more round."""
    pause_s = min(fleet.now_s - history.now_s, LONGEST_ROUND_S)
    lives, places = {}, _recovered(history, fleet)
    for seen in fleet.observed:
        before = history.lives.get(seen.incarnation)
        life = _lived_on(before, seen, fleet=fleet, pause_s=pause_s)
        lives[seen.incarnation] = life
        if not life.alive and (before is None or before.alive):
            healthy_for_s = _healthy_for_s(before, fleet.now_s)
            place = places.get(life.place, PlaceHistory())
            places[life.place] = _after_end(place, life, seen, healthy_for_s=healthy_for_s, fleet=fleet)
    return FleetHistory(now_s=fleet.now_s, lives=lives, places=places, gangs=history.gangs)


def with_stop_asked(history: FleetHistory, incarnation: str) -> FleetHistory:
    """The history once a replica has been asked to stop."""
    life = history.lives[incarnation]
    stopping = replace(life, stop_asked=True, state=ReplicaState.DRAINING, since_s=history.now_s)
    return replace(history, lives={**history.lives, incarnation: stopping})


def with_refusal(history: FleetHistory, place: str, reason: str, *, settings: str, back_off: BackOff) -> FleetHistory:
    """The history once a launcher has refused to start a replica: it counts like a replica that failed."""
    failures = history.place(place).failures + 1
    not_before_s = history.now_s + back_off.pause_s(failures)
    refused = PlaceHistory(failures=failures, not_before_s=not_before_s, reason=reason, settings=settings)
    return replace(history, places={**history.places, place: refused})


def _recovered(history: FleetHistory, fleet: FleetRound) -> dict[str, PlaceHistory]:
    """The places of deployments that are still wanted as they were, without the failures of those that are healthy
    again."""
    settings = fleet.settings
    healthy = {
        life.place
        for life in history.lives.values()
        if life.alive and life.state is ReplicaState.READY and fleet.now_s - life.since_s >= fleet.back_off.healthy_s
    }
    return {
        name: place
        for name, place in history.places.items()
        if name not in healthy and place.settings == settings.get(name.rpartition("-")[0])
    }


def _lived_on(
    before: ReplicaLife | None, seen: ReplicaObservation, *, fleet: FleetRound, pause_s: float
) -> ReplicaLife:
    status = fleet.statuses.get(seen.incarnation)
    known = before or ReplicaLife(
        place=seen.replica,
        state=ReplicaState.PENDING,
        since_s=fleet.now_s,
        settings=fleet.settings.get(seen.replica.rpartition("-")[0], ""),
    )
    state = _state(known, seen, status)
    return replace(
        known,
        state=state,
        since_s=known.since_s if state is known.state else fleet.now_s,
        alive=seen.alive,
        reason=(status.reason if status else "") or known.reason,
        settings=(status.settings if status else "") or known.settings,
        heard=known.heard or status is not None,
        silent_s=0.0 if status is not None or not known.heard else known.silent_s + pause_s,
        was_ready=known.was_ready or state is ReplicaState.READY,
        gang=(status.gang if status else None) or seen.gang or known.gang,
        placed=seen.placed,
    )


def _state(known: ReplicaLife, seen: ReplicaObservation, status: ReplicaStatus | None) -> ReplicaState:
    if not seen.alive:
        return ReplicaState.STOPPED if seen.had_drained else ReplicaState.FAILED
    if status is not None and status.state is ReplicaState.FAILED:
        return ReplicaState.FAILED
    if known.stop_asked:
        return ReplicaState.DRAINING
    if status is not None:
        return status.state
    if known.heard:
        return known.state
    return ReplicaState.STARTING if seen.placed else ReplicaState.PENDING


def _after_end(
    place: PlaceHistory, life: ReplicaLife, seen: ReplicaObservation, *, healthy_for_s: float, fleet: FleetRound
) -> PlaceHistory:
    """What the end of a replica means for its place: an orderly end is no failure, every other one is."""
    if life.stop_asked or (seen.had_drained and life.was_ready):
        return place
    failures = fleet.back_off.failures_after(place.failures, healthy_for_s=healthy_for_s)
    pause_s = fleet.back_off.pause_s(failures)
    return PlaceHistory(
        failures=failures,
        not_before_s=fleet.now_s + pause_s,
        reason=life.reason or seen.reason or "it left before it had ever been ready",
        settings=life.settings,
    )


def _healthy_for_s(before: ReplicaLife | None, now_s: float) -> float:
    return now_s - before.since_s if before is not None and before.state is ReplicaState.READY else 0.0
