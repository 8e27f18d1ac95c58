"""Deployments and observations for the controller's tests, and a fleet of pretended replicas that live and die."""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from shardline_cluster.controller.actions import Action, Kill, ReportDead, Start, Stop
from shardline_cluster.controller.launcher_calls import LauncherBusyError
from shardline_cluster.controller.replica_launcher import ReplicaObservation
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import Deployment, EngineOptions
from shardline_cluster.fleet.gang import Gang
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_cluster.planning.rank_nodes import RankNode, without


def deployment(num_replicas: int = 1, *, lane: str = "tiny-1a2b", device: str = "cpu") -> Deployment:
    return Deployment(
        name="tiny",
        model="simulated",
        lane=lane,
        weights_digest="1a2b",
        max_model_len=512,
        num_replicas=num_replicas,
        options=EngineOptions(engine="simulated", device=device),
    )


def status(state: ReplicaState, *, replica: str = "tiny-1a2b-0", reason: str = "") -> ReplicaStatus:
    return ReplicaStatus(deployment="tiny", replica=replica, state=state, reason=reason)


@dataclass
class PretendedReplica:
    """A replica that goes one state further with each tick, unless it hangs."""

    place: str
    settings: str = ""  # of the deployment that it was built from
    state: ReplicaState = ReplicaState.PENDING
    hangs: bool = False
    drained: bool = False
    gang: Gang | None = None
    waits: bool = False  # for resources, for ever

    @property
    def alive(self) -> bool:
        return self.state not in (ReplicaState.STOPPED, ReplicaState.FAILED)

    def tick(self) -> None:
        order = [ReplicaState.PENDING, ReplicaState.STARTING, ReplicaState.LOADING, ReplicaState.READY]
        if self.state is ReplicaState.DRAINING:
            self.state, self.drained = ReplicaState.STOPPED, True
        elif self.state in order[:-1] and not (self.hangs or self.waits):
            self.state = order[order.index(self.state) + 1]

    def die(self) -> None:
        self.state = ReplicaState.FAILED


@dataclass
class PretendedFleet:
    """Carries actions out at once and shows what a launcher and the lanes would show."""

    replicas: dict[str, PretendedReplica] = field(default_factory=dict)
    num_started: int = 0
    details: dict[str, str] = field(default_factory=dict)  # that all replicas tell of themselves

    def act(self, action: Action) -> None:
        match action:
            case Start(place=place, deployment=deployment, gang=gang):
                self.num_started += 1
                replica = PretendedReplica(place.name, deployment.settings, gang=gang)
                self.replicas[f"inc-{self.num_started:04}"] = replica
            case Stop(incarnation=incarnation) if self.replicas[incarnation].alive:
                self.replicas[incarnation].state = ReplicaState.DRAINING
            case Kill(incarnation=incarnation) if self.replicas[incarnation].alive:
                self.replicas[incarnation].die()
            case ReportDead(incarnation=incarnation):
                del self.replicas[incarnation]

    def tick(self) -> None:
        for replica in self.replicas.values():
            replica.tick()

    def only(self) -> tuple[str, PretendedReplica]:
        """The one replica that is alive, with its incarnation."""
        ((incarnation, replica),) = ((i, r) for i, r in self.replicas.items() if r.alive)
        return incarnation, replica

    def observed(self) -> tuple[ReplicaObservation, ...]:
        return tuple(
            ReplicaObservation(
                replica.place,
                incarnation,
                alive=replica.alive,
                had_drained=replica.drained,
                placed=replica.state is not ReplicaState.PENDING,
                gang=replica.gang,
            )
            for incarnation, replica in self.replicas.items()
        )

    def statuses(self) -> dict[str, ReplicaStatus]:
        silent = (ReplicaState.PENDING, ReplicaState.STARTING)
        return {
            incarnation: replace(
                status(replica.state, replica=replica.place),
                details=self.details,
                settings=replica.settings,
                gang=replica.gang,
            )
            for incarnation, replica in self.replicas.items()
            if replica.alive and replica.state not in silent
        }


class PretendedLauncher:
    """A ReplicaLauncher over a pretended fleet; what it is told can be looked up afterwards."""

    def __init__(self) -> None:
        self.fleet = PretendedFleet()
        self.specs: list[ReplicaSpec] = []
        self.stopped: list[str] = []
        self.killed: list[str] = []
        self.forgotten: list[str] = []
        self.refusal = ""
        self.hang: threading.Event | None = None  # every call waits for it
        self.closed = False
        self.gives_whole_gpus = False
        self.nodes: tuple[RankNode, ...] = ()  # without what replicas take of them
        self.head_is_away = False

    def start(self, spec: ReplicaSpec) -> None:
        self._wait()
        if self.refusal:
            raise ConfigurationError(self.refusal)
        self.specs.append(spec)
        self.fleet.replicas[spec.incarnation] = PretendedReplica(spec.replica, spec.deployment.settings, gang=spec.gang)

    def inventory(self, resource: str) -> Sequence[RankNode]:
        if self.head_is_away:
            raise LauncherBusyError("the head is away")
        taken: Counter[str] = Counter()
        for replica in self.fleet.replicas.values():
            if replica.alive and replica.gang and replica.state is not ReplicaState.PENDING:
                taken.update(replica.gang.slots)
        return without([node for node in self.nodes if node.resource == resource], taken)

    def observe(self) -> Sequence[ReplicaObservation]:
        self._wait()
        return self.fleet.observed()

    def stop(self, incarnation: str) -> None:
        self._wait()
        self.stopped.append(incarnation)
        self.fleet.act(Stop(incarnation, ""))

    def kill(self, incarnation: str) -> None:
        self._wait()
        self.killed.append(incarnation)
        self.fleet.act(Kill(incarnation, ""))

    def forget(self, incarnation: str) -> None:
        self.forgotten.append(incarnation)
        del self.fleet.replicas[incarnation]

    def close(self) -> None:
        self.closed = True

    def _wait(self) -> None:
        if self.hang is not None:
            self.hang.wait(10)
