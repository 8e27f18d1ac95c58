"""What a replica needs of a machine. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shardline_cluster.controller.replica_place import ReplicaPlace, places_of
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.asked_shape import fixed_plan, least_plan
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.replica_state import ReplicaStatus
from shardline_workers.memory_budget import RUNTIME_BYTES

# A placement is there to find the host, not to ration its cores: threads are divided by `replicas_on_host`. So a bundle
# asks for a sliver of a CPU: enough to keep it off hosts with none (the head), small enough that a laptop takes many.
CPU_SLIVER = 0.01


def replicas_on_host(deployments: tuple[Deployment, ...]) -> int:
    """By how many replicas a host's threads are divided, at least 1.

    As if all shared one host. Ray packs replicas without a GPU onto as few machines as it can, so that on several
    machines this may be less than a replica could have; more would not be safe.
    """
    return max(1, sum(deployment.num_replicas for deployment in deployments))


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryShare:
    """What a replica that starts now must leave to others."""

    taken_bytes: int  # by those that are there
    sharers: int  # ranks that share the rest: of this replica, and of those that have not loaded yet


def memory_share(
    starting: Deployment, deployments: Sequence[Deployment], statuses: Iterable[ReplicaStatus], *, whole_gpus: bool
) -> MemoryShare:
    """How memory is shared on the device where a replica of `starting` is to run. With `whole_gpus` no two replicas
    share a GPU.

    As if it came to the fullest host, and all that start with it did too. A model that is deployed while others run
    gets what they have left, and a replica that follows a dead one gets what that one had.
    """
    if whole_gpus and starting.options.device.startswith("cuda"):
        return MemoryShare(taken_bytes=0, sharers=1)
    peers = [deployment for deployment in deployments if deployment.options.device == starting.options.device]
    wanted = {place.name: _num_ranks(deployment) for deployment in peers for place in places_of(deployment)}
    others = {deployment.lane for deployment in deployments} - {deployment.lane for deployment in peers}
    taken_bytes: dict[str, int] = defaultdict(int)
    loaded = set()
    for status in statuses:
        num_bytes = _bytes_of(status)
        if num_bytes and _lane_of(status) not in others:
            taken_bytes[status.host] += num_bytes + RUNTIME_BYTES
            loaded.add(status.replica)
    return MemoryShare(
        taken_bytes=max(taken_bytes.values(), default=0),
        sharers=max(1, sum(ranks for name, ranks in wanted.items() if name not in loaded)),
    )


def _num_ranks(deployment: Deployment) -> int:
    """Of one replica that share a memory, as it was asked for: each takes its own part of it. On GPUs each has one."""
    if deployment.options.device.startswith("cuda"):
        return 1
    return (fixed_plan(deployment.options) or least_plan(deployment.options)).num_ranks


def _bytes_of(status: ReplicaStatus) -> int:
    """Weights and KV cache of a replica; 0 while it has not loaded, or where its engine takes none."""
    told = (status.details.get(name, "") for name in ("weights_bytes", "kv_cache_bytes"))
    return sum(int(text) for text in told if text.isdecimal())


def _lane_of(status: ReplicaStatus) -> str:
    try:
        return ReplicaPlace.of(status.replica).lane
    except ConfigurationError:  # another version's
        return ""
