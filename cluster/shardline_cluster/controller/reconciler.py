"""Compares what is wanted with what is there and says what to do. Pure: plain data in, plain data out.

    deployments, observations, statuses ──remember──▶ history ──decide──▶ actions

Every rule looks at the present state alone, so that a lost or doubled action does no harm: what it should have changed
is simply seen again in the next round. Replicas that fail are replaced for ever, with longer and longer pauses; a crash
loop is shown (`PlaceHistory.failures`, `reason`), never given up in silence.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from shardline_cluster.controller.actions import Action, Kill, ReportDead, Start, Stop
from shardline_cluster.controller.fleet_history import (
    FleetHistory,
    FleetRound,
    ReplicaLife,
    remember,
    with_stop_asked,
)
from shardline_cluster.controller.gang_rounds import shape_gangs
from shardline_cluster.controller.replica_limits import ReplicaLimits
from shardline_cluster.controller.replica_place import ReplicaPlace, places_of
from shardline_cluster.fleet.replica_state import ReplicaState

LONGEST_PLACING_S = 30.0  # where there is room
# Which of several replicas in one place is kept: the one that is furthest.
_FURTHEST_FIRST = (
    ReplicaState.READY,
    ReplicaState.WARMING,
    ReplicaState.LOADING,
    ReplicaState.STARTING,
    ReplicaState.PENDING,
)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What to do in this round, and what to remember for the next one."""

    actions: tuple[Action, ...]
    history: FleetHistory


def reconcile(fleet: FleetRound, history: FleetHistory, limits: ReplicaLimits) -> Reconciliation:
    """Decides one round. Dead replicas are reported first, so that their requests move before anything slow begins."""
    history = remember(history, fleet)
    stops = (*_surplus(fleet, history), *_outdated(fleet, history))
    actions: tuple[Action, ...] = (*_dead(fleet), *_overdue(history, limits), *stops, *_missing(fleet, history))
    actions, history = shape_gangs(actions, fleet, history, limits.replan)
    for action in actions:
        if isinstance(action, Stop):
            history = with_stop_asked(history, action.incarnation)
    return Reconciliation(actions, history)


def _dead(fleet: FleetRound) -> Iterator[ReportDead]:
    for seen in fleet.observed:
        if not seen.alive:
            yield ReportDead(ReplicaPlace.of(seen.replica).lane, seen.incarnation, seen.had_drained)


def _overdue(history: FleetHistory, limits: ReplicaLimits) -> Iterator[Kill]:
    for incarnation, life in history.lives.items():
        reason = _over_limit(life, history.now_s, limits)
        if life.alive and reason:
            yield Kill(incarnation, reason)


def _over_limit(life: ReplicaLife, now_s: float, limits: ReplicaLimits) -> str:
    """Why a replica is given up; empty where it is not."""
    limit_s, in_state_s = limits.of(life.state), now_s - life.since_s
    if limit_s is not None and in_state_s > limit_s:
        return f"it has been {life.state.value} for {in_state_s:.0f} s; the limit is {limit_s:.0f} s"
    if life.state is ReplicaState.READY and life.silent_s > limits.silent_s:
        return f"its lane has not heard of it for {life.silent_s:.0f} s; the limit is {limits.silent_s:.0f} s"
    return ""


def _surplus(fleet: FleetRound, history: FleetHistory) -> Iterator[Stop]:
    """Replicas that nobody wants: of places that are gone, and all but one in a place."""
    wanted = {place.name for deployment in fleet.desired for place in places_of(deployment)}
    for name, incarnations in _by_place(history).items():
        kept = _furthest(history, incarnations) if name in wanted else None
        for incarnation in incarnations:
            if incarnation != kept and not history.lives[incarnation].stop_asked:
                yield Stop(incarnation, "its place is filled twice" if kept else f"no deployment wants {name}")


def _outdated(fleet: FleetRound, history: FleetHistory) -> Iterator[Stop]:
    """Replicas that were built from other settings than their deployment now has: those that serve go one by one, each
    once all others are ready, so that most of them always serve."""
    filled = _by_place(history)
    for deployment in fleet.desired:
        places = [place.name for place in places_of(deployment)]
        lives = {i: history.lives[i] for place in places for i in filled.get(place, [])}
        old = [i for i, life in lives.items() if life.settings != deployment.settings and not life.stop_asked]
        idle = [i for i in old if lives[i].state is not ReplicaState.READY]
        settled = all(_is_settled(life, history.now_s) for life in lives.values()) and len(lives) == len(places)
        for incarnation in idle or (old[:1] if settled else []):
            yield Stop(incarnation, "its deployment has other settings now")


def _is_settled(life: ReplicaLife, now_s: float) -> bool:
    """Whether a replica serves, or has waited for resources so long that nobody knows when it will."""
    return life.state is ReplicaState.READY or (
        life.state is ReplicaState.PENDING and now_s - life.since_s > LONGEST_PLACING_S
    )


def _missing(fleet: FleetRound, history: FleetHistory) -> Iterator[Start]:
    """Places without a live replica whose rest is over. One that drains still fills its place: it holds memory."""
    filled = _by_place(history)
    for deployment in fleet.desired:
        for place in places_of(deployment):
            past = history.place(place.name)
            if place.name not in filled and past.not_before_s <= history.now_s:
                yield Start(place, deployment, past.reason or "its place is empty")


def _by_place(history: FleetHistory) -> dict[str, list[str]]:
    """Live incarnations by the name of their place."""
    places: dict[str, list[str]] = defaultdict(list)
    for incarnation, life in history.lives.items():
        if life.alive:
            places[life.place].append(incarnation)
    return places


def _furthest(history: FleetHistory, incarnations: list[str]) -> str:
    """The replica to keep; ties go to the lowest incarnation, so that every round and every controller agrees."""

    def rank(incarnation: str) -> tuple[int, str]:
        state = history.lives[incarnation].state
        behind = len(_FURTHEST_FIRST)
        return (_FURTHEST_FIRST.index(state) if state in _FURTHEST_FIRST else behind, incarnation)

    return min(incarnations, key=rank)
