"""What a round decides about the shapes of replicas: a start gets its ranks or waits, smaller ones go back. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from shardline_cluster.controller.actions import Action, Start, Stop
from shardline_cluster.controller.fleet_history import FleetHistory, FleetRound, GangWait, ReplicaLife
from shardline_cluster.controller.gang_planning import ReplanTimes, fits_in_full, full_plan, plan_gang, wants_slots
from shardline_cluster.controller.replica_place import ReplicaPlace, places_of
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.gang import Gang
from shardline_cluster.fleet.replica_state import ReplicaState
from shardline_cluster.planning.rank_nodes import RankNode, with_back, without

LONGEST_PLACING_S = 10.0  # on nodes that had room a moment ago: others have taken it since
UNKNOWN_NODES = "the launcher does not tell which nodes there are"


@dataclass(slots=True)
class _Room:
    """Slots that are free, less with each start of this round; and on which nodes replicas of each lane are."""

    nodes: tuple[RankNode, ...]
    lanes: dict[str, dict[str, int]]

    def others(self, lane: str, without: Gang | None = None) -> Mapping[str, int]:
        """Replicas of a lane by node, but for one of them."""
        mine = without.slots if without is not None else {}
        return {node: number - (node in mine) for node, number in self.lanes[lane].items()}

    def take(self, lane: str, gang: Gang) -> None:
        """For a replica that starts."""
        self.nodes = without(self.nodes, gang.slots)
        for node in gang.slots:
            self.lanes[lane][node] = self.lanes[lane].get(node, 0) + 1


def shape_gangs(
    actions: Iterable[Action], fleet: FleetRound, history: FleetHistory, times: ReplanTimes
) -> tuple[tuple[Action, ...], FleetHistory]:
    """The same actions with the ranks of each start, without those that have to wait, and with stops of replicas that
    can run in full again."""
    room = _room(fleet, history)
    waits: dict[str, GangWait] = {}
    kept: list[Action] = []
    for action in actions:
        if not isinstance(action, Start):
            kept.append(action)
            continue
        wait = history.gangs.get(action.place.name, GangWait())
        gang = _gang_for(action, wait, fleet, room, times)
        if isinstance(gang, Gang):
            room.take(action.place.lane, gang)
            kept.append(replace(action, gang=gang))
        else:
            since_s = history.now_s if wait.missing_since_s is None else wait.missing_since_s
            waits[action.place.name] = GangWait(missing_since_s=since_s, reason=gang)
    stopped = {action.incarnation for action in kept if isinstance(action, Stop)}
    for incarnation, life in _gangs(fleet, history):
        if incarnation not in stopped:
            waits |= _grown(life, fleet, history, room)
    stops = [*_stuck(fleet, history, stopped), *_returning(fleet, history, waits, times)]
    return (*kept, *stops), replace(history, gangs=waits)


def _gang_for(start: Start, wait: GangWait, fleet: FleetRound, room: _Room, times: ReplanTimes) -> Gang | str:
    if fleet.nodes is None and wants_slots(start.deployment):
        return UNKNOWN_NODES
    since_s = fleet.now_s if wait.missing_since_s is None else wait.missing_since_s
    return plan_gang(
        start.deployment,
        room.nodes,
        others=room.others(start.place.lane),
        may_shrink=fleet.now_s - since_s >= times.missing_s,
    )


def _room(fleet: FleetRound, history: FleetHistory) -> _Room:
    """What launchers tell lags behind what has just been started, so that it counts with what is known to be there."""
    held: dict[str, int] = defaultdict(int)
    coming: dict[str, int] = defaultdict(int)
    lanes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for life in history.lives.values():
        for node, number in (life.gang.slots if life.alive and life.gang else {}).items():
            held[node] += number
            coming[node] += 0 if life.placed else number
            lanes[ReplicaPlace.of(life.place).lane][node] += 1
    nodes = tuple(
        replace(node, free_slots=min(node.free_slots, max(0, node.num_slots - held[node.name] + coming[node.name])))
        for node in fleet.nodes or ()
    )
    return _Room(without(nodes, coming), lanes)


def _gangs(fleet: FleetRound, history: FleetHistory) -> Iterator[tuple[str, ReplicaLife]]:
    """Living replicas of deployments whose ranks take slots."""
    wanted = {place.name for d in fleet.desired if wants_slots(d) for place in places_of(d)}
    for incarnation, life in history.lives.items():
        if life.alive and not life.stop_asked and life.place in wanted:
            yield incarnation, life


def _grown(life: ReplicaLife, fleet: FleetRound, history: FleetHistory, room: _Room) -> dict[str, GangWait]:
    """Since when a replica in a smaller shape could have run in full, by its place; nothing where it could not."""
    deployment, gang = _deployment_of(life, fleet), life.gang
    full = full_plan(deployment)
    if fleet.nodes is None or gang is None or full is None or gang.plan == full:
        return {}
    lane = deployment.lane
    if not fits_in_full(deployment, with_back(room.nodes, gang.slots), others=room.others(lane, without=gang)):
        return {}
    before = history.gangs.get(life.place, GangWait()).returned_since_s
    return {life.place: GangWait(returned_since_s=history.now_s if before is None else before)}


def _returning(
    fleet: FleetRound, history: FleetHistory, waits: Mapping[str, GangWait], times: ReplanTimes
) -> Iterator[Stop]:
    """Replicas that leave their smaller shape: one of a deployment at a time, while all others serve."""
    for deployment in fleet.desired:
        places = {place.name for place in places_of(deployment)}
        lives = {i: life for i, life in history.lives.items() if life.alive and life.place in places}
        if len(lives) < len(places) or any(life.state is not ReplicaState.READY for life in lives.values()):
            continue
        for incarnation, life in lives.items():
            since_s = waits.get(life.place, GangWait()).returned_since_s
            if since_s is not None and history.now_s - since_s >= times.returned_s:
                yield Stop(incarnation, f"there is room for {full_plan(deployment)} again")
                break


def _stuck(fleet: FleetRound, history: FleetHistory, stopped: set[str]) -> Iterator[Stop]:
    """Gangs whose place was taken by somebody else before they came there: they are planned anew."""
    for incarnation, life in _gangs(fleet, history):
        waited_s = history.now_s - life.since_s
        if incarnation not in stopped and life.state is ReplicaState.PENDING and waited_s > LONGEST_PLACING_S:
            yield Stop(incarnation, f"it has not come to its nodes for {waited_s:.0f} s")


def _deployment_of(life: ReplicaLife, fleet: FleetRound) -> Deployment:
    lane = ReplicaPlace.of(life.place).lane
    return next(deployment for deployment in fleet.desired if deployment.lane == lane)
