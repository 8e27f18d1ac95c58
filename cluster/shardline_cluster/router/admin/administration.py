"""What a router's Admin service stands on: one core for each thing that operators look after."""

from dataclasses import dataclass

from shardline_cluster.router.admin.deployment_administration import DeploymentAdministration
from shardline_cluster.router.admin.key_administration import KeyAdministration
from shardline_cluster.router.admin.usage_administration import UsageAdministration


@dataclass(frozen=True, slots=True, kw_only=True)
class Administration:
    """All of them."""

    deployments: DeploymentAdministration
    keys: KeyAdministration
    usage: UsageAdministration
