"""The nodes that ranks may run on, as the launcher tells them in each round where somebody wants slots."""

from collections.abc import Iterable
from functools import partial

from shardline_cluster.controller.gang_planning import wants_slots
from shardline_cluster.controller.launcher_calls import LauncherBusyError, LauncherCalls
from shardline_cluster.controller.replica_launcher import ReplicaLauncher
from shardline_cluster.fleet.asked_shape import rank_resource
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.planning.rank_nodes import RankNode

DEADLINE_S = 2.0  # rounds wait for it, and do without it while Ray's head is away


class NodeWatch:
    """Asks a launcher. To be used from one loop only."""

    def __init__(self, launcher: ReplicaLauncher) -> None:
        self._launcher = launcher
        self._calls = LauncherCalls(DEADLINE_S)

    async def look(self, deployments: Iterable[Deployment]) -> tuple[RankNode, ...] | None:
        """Nodes with slots of any resource that these deployments' ranks take; None where the launcher does not answer:
        what runs goes on then, and nothing starts on such nodes."""
        resources = sorted({rank_resource(d.options) for d in deployments if wants_slots(d)})
        nodes: list[RankNode] = []
        try:
            for resource in resources:
                nodes += await self._calls.call("inventory", partial(self._launcher.inventory, resource))
        except LauncherBusyError:
            return None
        return tuple(nodes)
