"""Deployments and observations for the controller's tests, and a fleet of pretended replicas that live and die."""

from dataclasses import dataclass, field

from shardline_cluster.controller.actions import Action, Kill, ReportDead, Start, Stop
from shardline_cluster.controller.replica_launcher import ReplicaObservation
from shardline_cluster.fleet.deployment import Deployment, EngineOptions
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus


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
    state: ReplicaState = ReplicaState.PENDING
    hangs: bool = False
    drained: bool = False

    @property
    def alive(self) -> bool:
        return self.state not in (ReplicaState.STOPPED, ReplicaState.FAILED)

    def tick(self) -> None:
        order = [ReplicaState.PENDING, ReplicaState.STARTING, ReplicaState.LOADING, ReplicaState.READY]
        if self.state is ReplicaState.DRAINING:
            self.state, self.drained = ReplicaState.STOPPED, True
        elif self.state in order[:-1] and not self.hangs:
            self.state = order[order.index(self.state) + 1]

    def die(self) -> None:
        self.state = ReplicaState.FAILED


@dataclass
class PretendedFleet:
    """Carries actions out at once and shows what a launcher and the lanes would show."""

    replicas: dict[str, PretendedReplica] = field(default_factory=dict)
    num_started: int = 0

    def act(self, action: Action) -> None:
        match action:
            case Start(place=place):
                self.num_started += 1
                self.replicas[f"inc-{self.num_started:04}"] = PretendedReplica(place.name)
            case Stop(incarnation=incarnation) if self.replicas[incarnation].alive:
                self.replicas[incarnation].state = ReplicaState.DRAINING
            case Kill(incarnation=incarnation) if self.replicas[incarnation].alive:
                self.replicas[incarnation].die()
            case ReportDead(incarnation=incarnation):
                del self.replicas[incarnation]

    def tick(self) -> None:
        for replica in self.replicas.values():
            replica.tick()

    def observed(self) -> tuple[ReplicaObservation, ...]:
        return tuple(
            ReplicaObservation(
                replica.place,
                incarnation,
                alive=replica.alive,
                had_drained=replica.drained,
                placed=replica.state is not ReplicaState.PENDING,
            )
            for incarnation, replica in self.replicas.items()
        )

    def statuses(self) -> dict[str, ReplicaStatus]:
        silent = (ReplicaState.PENDING, ReplicaState.STARTING)
        return {
            incarnation: status(replica.state, replica=replica.place)
            for incarnation, replica in self.replicas.items()
            if replica.alive and replica.state not in silent
        }
