"""Replicas as Ray actors: Ray finds the host and starts the process; the controller alone restarts.

Each replica has a placement group of its own and one detached, named actor in it that Ray never restarts
(`max_restarts=0`): two restarters would race. A new life of the controller finds the actors again by their names.

Control calls of Ray block without a word while its head is away, so none is made where somebody waits: placing runs in
a thread of its own for each replica, `observe` reads answers that have already come, and the controller gives every
call a thread and a deadline. Replicas that run do not notice any of it.
"""

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from shardline_cluster.controller.placement import ReplicaBundle, bundle_for
from shardline_cluster.controller.ray_replica import RayReplica
from shardline_cluster.controller.ray_replica_actor import ReplicaActor
from shardline_cluster.controller.replica_launcher import ReplicaObservation
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.fleet.replica_spec import ReplicaSpec

LOG = logging.getLogger(__name__)
KIND = "shardline-replica"  # names are KIND:PLACE:INCARNATION; no part holds a colon
PLACING_POLL_S = 0.5
CONCURRENT_CALLS = 8  # of an actor; `ended` waits in one or two of them


class RayLauncher:
    """Implements ReplicaLauncher on the Ray cluster and in the namespace that this process has joined."""

    def __init__(self, actor: type = ReplicaActor) -> None:
        self._actor = actor
        self._replicas: dict[str, RayReplica] = {}
        self._found_earlier = False

    @property
    def gives_whole_gpus(self) -> bool:
        """See ReplicaLauncher: Ray reserves them."""
        return True

    def start(self, spec: ReplicaSpec) -> None:
        """See ReplicaLauncher."""
        record = RayReplica(spec.replica, spec.incarnation)
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
            if record.process is not None:
                record.process.kill()
            if record.handle is not None:
                ray.kill(record.handle)

    def forget(self, incarnation: str) -> None:
        """See ReplicaLauncher."""
        if record := self._replicas.pop(incarnation, None):
            if record.handle is not None:
                ray.kill(record.handle)  # a replica that has drained is an actor without work, still there
            _remove_group(_name(record.replica, incarnation))

    def close(self) -> None:
        """Replicas live on, for the next launcher in this namespace."""
        self._replicas.clear()

    def _place(self, record: RayReplica, spec: ReplicaSpec) -> None:
        """Waits for resources as long as it takes, then makes the actor."""
        name = _name(spec.replica, spec.incarnation)
        try:
            bundle = bundle_for(spec.deployment.options)
            group = placement_group([_resources(bundle)], strategy="STRICT_PACK", name=name, lifetime="detached")
            while not record.cancelled and not group.wait(PLACING_POLL_S):
                pass
            if record.cancelled:
                record.end("it was stopped before it had a place", had_drained=True)
                return
            record.run_as(self._make_actor(name, group, bundle, spec))
        except Exception as error:  # whatever Ray raises: the controller tries again, and says why
            LOG.warning("replica %s could not be placed: %s", spec.replica, error)
            record.end(f"Ray could not place it: {error}")
        if record.cancelled and record.handle is not None:  # stopped while the actor was being made
            record.handle.stop.remote()

    def _make_actor(self, name: str, group: PlacementGroup, bundle: ReplicaBundle, spec: ReplicaSpec) -> Any:
        options = {
            "name": name,
            "lifetime": "detached",
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": CONCURRENT_CALLS,
            "num_cpus": bundle.num_cpus,
            "num_gpus": bundle.num_gpus,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0),
        }
        return ray.remote(self._actor).options(**options).remote(to_json(spec))

    def _find_earlier_lives(self) -> None:
        for name in ray.util.list_named_actors():
            place, incarnation = _parse(name)
            if incarnation and incarnation not in self._replicas:
                with suppress(ValueError):  # it ended between the two calls
                    handle = ray.get_actor(name)
                    self._replicas[incarnation] = RayReplica(place, incarnation)
                    self._replicas[incarnation].run_as(handle)
        self._remove_empty_groups()

    def _remove_empty_groups(self) -> None:
        """Groups whose replica died, or was never made, while there was no controller."""
        for group in placement_group_table().values():
            incarnation = _parse(group["name"])[1]
            if incarnation and incarnation not in self._replicas and group["state"] != "REMOVED":
                _remove_group(group["name"])


def _name(place: str, incarnation: str) -> str:
    return f"{KIND}:{place}:{incarnation}"


def _parse(name: str) -> tuple[str, str]:
    """Place and incarnation; empty where the name is none of ours."""
    kind, _, rest = name.partition(":")
    place, _, incarnation = rest.partition(":")
    return (place, incarnation) if kind == KIND else ("", "")


def _resources(bundle: ReplicaBundle) -> dict[str, float]:
    gpus = {"GPU": bundle.num_gpus} if bundle.num_gpus else {}
    return {"CPU": bundle.num_cpus, **gpus}


def _remove_group(name: str) -> None:
    with suppress(ValueError, RayError):  # it is gone already
        remove_placement_group(get_placement_group(name))
