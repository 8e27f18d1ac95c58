"""Which lanes a controller serves: those of its deployments, and the ones that they have left with work in them. Pure.

A lane belongs to one weights digest. Other weights under a name mean another lane; what was accepted before is still
answered by the weights that it was accepted for, until the lane is empty or its time is over.
"""

from collections.abc import Iterable, Set

from shardline_cluster.fleet.deployment import Deployment


def lanes_to_watch(deployments: Iterable[Deployment], *, now_ms: int) -> tuple[Deployment, ...]:
    """Deployments, each followed by itself as it was at those of its former lanes whose time is not over."""
    return tuple(
        stage
        for deployment in deployments
        for stage in (deployment, *(deployment.at(f) for f in deployment.former_lanes if now_ms < f.until_ms))
    )


def to_be_served(deployments: Iterable[Deployment], with_work: Set[str], *, now_ms: int) -> tuple[Deployment, ...]:
    """What is to have replicas now. `with_work` are the lanes in which requests have not ended yet."""
    return tuple(
        stage
        for deployment in deployments
        for stage in lanes_to_watch([deployment], now_ms=now_ms)
        if stage is deployment or stage.lane in with_work
    )
