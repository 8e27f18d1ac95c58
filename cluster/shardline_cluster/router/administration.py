"""What a router's Admin service stands on: one core for each thing that operators look after."""

from dataclasses import dataclass

from shardline_cluster.router.deployment_administration import DeploymentAdministration
from shardline_cluster.router.key_administration import KeyAdministration
from shardline_cluster.router.usage_administration import UsageAdministration


@dataclass(frozen=True, slots=True, kw_only=True)
class Administration:
    """All of them."""

    deployments: DeploymentAdministration
    keys: KeyAdministration
    usage: UsageAdministration
