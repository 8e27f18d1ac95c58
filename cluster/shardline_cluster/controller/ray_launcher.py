"""Replicas as Ray actors: Ray finds the host and starts the process; the controller alone restarts.

Each replica has a placement group of its own and detached, named actors in it that Ray never restarts
(`max_restarts=0`): two restarters would race. A new life of the controller finds the actors again by their names. A
replica whose ranks take GPUs has an actor for each of them, in bundles on the nodes that planning chose; one whose
ranks share the cores of a host has one actor, which starts the others itself.

Control calls of Ray block without a word while its head is away, so none is made where somebody waits: placing runs in
a thread of its own for each replica, `observe` reads answers that have already come, and the controller gives every
call a thread and a deadline. Replicas that run do not notice any of it.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import get_placement_group, placement_group_table, remove_placement_group

from shardline_cluster.controller.launcher_calls import LauncherBusyError
from shardline_cluster.controller.ray_gang import make_actors, request_group
from shardline_cluster.controller.ray_nodes import rank_nodes
from shardline_cluster.controller.ray_rank_actor import RankActor
from shardline_cluster.controller.ray_replica import RayReplica
from shardline_cluster.controller.ray_replica_actor import ReplicaActor
from shardline_cluster.controller.replica_launcher import ReplicaObservation
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.planning.rank_nodes import RankNode

LOG = logging.getLogger(__name__)
KIND = "shardline-replica"  # names are KIND:PLACE:INCARNATION; no part holds a colon
PLACING_POLL_S = 0.5


class RayLauncher:
    """Implements ReplicaLauncher on the Ray cluster and in the namespace that this process has joined."""

    def __init__(self, actor: type = ReplicaActor, *, rank_actor: type = RankActor) -> None:
        self._actor = actor
        self._rank_actor = rank_actor
        self._replicas: dict[str, RayReplica] = {}
        self._found_earlier = False

    @property
    def gives_whole_gpus(self) -> bool:
        """See ReplicaLauncher: Ray reserves them."""
        return True

    def inventory(self, resource: str) -> Sequence[RankNode]:
        """See ReplicaLauncher. Asks Ray's head.

        Raises:
            LauncherBusyError: it does not answer.
        """
        try:
            return rank_nodes(resource)
        except (RayError, ConnectionError, TimeoutError) as error:
            raise LauncherBusyError(f"Ray's head does not tell its nodes: {error}") from error

    def start(self, spec: ReplicaSpec) -> None:
        """See ReplicaLauncher."""
        record = RayReplica(spec.replica, spec.incarnation, gang=spec.gang)
        self._replicas[spec.incarnation] = record
        placing = threading.Thread(target=self._place, args=(record, spec), name=f"place-{spec.replica}", daemon=True)
        placing.start()

    def observe(self) -> Sequence[ReplicaObservation]:
        """See ReplicaLauncher. The first call asks Ray's head for what an earlier life has left, and may block."""
        if not self._found_earlier:
            self._find_earlier_lives()
            self._found_earlier = True
        return tuple(record.observe() for record in list(self._replicas.values()))

    def stop(self, incarnation: str) -> None:
        """See ReplicaLauncher."""
        if record := self._replicas.get(incarnation):
            record.cancelled = True
            if record.handle is not None:
                record.handle.stop.remote()

    def kill(self, incarnation: str) -> None:
        """See ReplicaLauncher. On this host it works without Ray's head."""
        if record := self._replicas.get(incarnation):
            record.cancelled = True
            record.kill()

    def forget(self, incarnation: str) -> None:
        """See ReplicaLauncher."""
        if record := self._replicas.pop(incarnation, None):
            record.kill()  # a replica that has drained is actors without work, still there
            _remove_group(_name(record.replica, incarnation))

    def close(self) -> None:
        """Replicas live on, for the next launcher in this namespace."""
        self._replicas.clear()

    def _place(self, record: RayReplica, spec: ReplicaSpec) -> None:
        """Waits for resources as long as it takes, then makes the actor."""
        name = _name(spec.replica, spec.incarnation)
        try:
            group = request_group(spec, name)
            while not record.cancelled and not group.wait(PLACING_POLL_S):
                pass
            if record.cancelled:
                record.end("it was stopped before it had a place", had_drained=True)
                return
            actors = make_actors(spec, name, group, leader=self._actor, rank=self._rank_actor)
            record.run_as(actors.leader, actors.ranks)
        except Exception as error:  # whatever Ray raises: the controller tries again, and says why
            LOG.warning("replica %s could not be placed: %s", spec.replica, error)
            record.end(f"Ray could not place it: {error}")
        if record.cancelled and record.handle is not None:  # stopped while the actor was being made
            record.handle.stop.remote()

    def _find_earlier_lives(self) -> None:
        names = [name for name in ray.util.list_named_actors() if _parse(name)[1]]
        ranks: dict[str, dict[int, Any]] = defaultdict(dict)
        for name in names:
            _, incarnation, rank = _parse(name)
            if rank is not None:
                with suppress(ValueError):  # it ended between the two calls
                    ranks[incarnation][rank] = ray.get_actor(name)
        for name in names:
            place, incarnation, rank = _parse(name)
            if rank is None and incarnation not in self._replicas:
                with suppress(ValueError):
                    handle = ray.get_actor(name)
                    self._replicas[incarnation] = RayReplica(place, incarnation)
                    self._replicas[incarnation].run_as(handle, ranks[incarnation])
        self._remove_empty_groups()

    def _remove_empty_groups(self) -> None:
        """Groups whose replica died, or was never made, while there was no controller."""
        for group in placement_group_table().values():
            incarnation = _parse(group["name"])[1]
            if incarnation and incarnation not in self._replicas and group["state"] != "REMOVED":
                _remove_group(group["name"])


def _name(place: str, incarnation: str) -> str:
    return f"{KIND}:{place}:{incarnation}"


def _parse(name: str) -> tuple[str, str, int | None]:
    """Place, incarnation and rank; the first two empty where the name is none of ours, no rank where it is a leader's
    or a group's."""
    kind, _, rest = name.partition(":")
    place, _, rest = rest.partition(":")
    incarnation, _, rank = rest.partition(":")
    return (place, incarnation, int(rank) if rank else None) if kind == KIND else ("", "", None)


def _remove_group(name: str) -> None:
    with suppress(ValueError, RayError):  # it is gone already
        remove_placement_group(get_placement_group(name))
