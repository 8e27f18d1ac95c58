"""How an existing deployment becomes another one of its name. Pure."""

from collections.abc import Iterable
from dataclasses import replace

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import Deployment, FormerLane

FORMER_LANE_MS = 30 * 60_000  # how long requests that were accepted for other weights may still take
MOST_FORMER_LANES = 8


def redeployed(before: Deployment | None, wanted: Deployment, *, now_ms: int) -> Deployment:
    """The deployment that replaces `before`. It stays in its cluster; a lane that it leaves is served to its end.

    Args:
        before: the deployment of this name; None: there is none.
        wanted: as it was planned.
        now_ms: since 1970.
    """
    if before is None:
        return wanted
    former = (_left(before, now_ms), *before.former_lanes) if before.lane != wanted.lane else before.former_lanes
    kept = [lane for lane in former if lane.lane != wanted.lane and now_ms < lane.until_ms]
    return replace(wanted, cluster=before.cluster, former_lanes=tuple(kept[:MOST_FORMER_LANES]))


def check_cluster_is_the_same(before: Deployment | None, wanted: Deployment) -> None:
    """`serve` has a controller of its own, and does not begin to serve what another cluster's controller keeps.

    Raises:
        ConfigurationError: another cluster has the deployment of this name.
    """
    if before is not None and before.cluster != wanted.cluster:
        raise ConfigurationError(
            f"{before.name} is deployed in the cluster {before.cluster!r} on the same Redis: give this one another "
            f"--served-model-name or --redis-prefix, serve it with --name {before.cluster}, or take it away there "
            f"first (shardline undeploy {before.name})"
        )


def check_lane_is_free(wanted: Deployment, others: Iterable[Deployment]) -> None:
    """Two deployments never share a lane: their replicas would fill the same places.

    Raises:
        ConfigurationError: a deployment of another name has it.
    """
    for other in others:
        if other.name != wanted.name and any(stage.lane == wanted.lane for stage in other.over_time()):
            raise ConfigurationError(
                f"the names {wanted.name!r} and {other.name!r} are too alike to be told apart in the queue (both are "
                f"{wanted.lane}): choose another name"
            )


def _left(before: Deployment, now_ms: int) -> FormerLane:
    return FormerLane(
        model=before.model,
        lane=before.lane,
        weights_digest=before.weights_digest,
        max_model_len=before.max_model_len,
        num_replicas=max(1, before.num_replicas),  # what waits there ends, even where nothing ran
        options=before.options,
        size=before.size,
        until_ms=now_ms + FORMER_LANE_MS,
    )
