"""What a replica needs of a machine. Pure, and simple for now: a replica is one bundle on one host."""

from dataclasses import dataclass

from shardline_cluster.fleet.deployment import Deployment, EngineOptions

# A placement is there to find the host, not to ration its cores: threads are divided by `replicas_on_host`. So a bundle
# asks for a sliver of a CPU: enough to keep it off hosts with none (the head), small enough that a laptop takes many.
CPU_SLIVER = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaBundle:
    """Resources of one replica on one host."""

    num_cpus: float
    num_gpus: float


def bundle_for(options: EngineOptions) -> ReplicaBundle:
    """What a replica with these options occupies: a whole GPU where it runs on one."""
    return ReplicaBundle(num_cpus=CPU_SLIVER, num_gpus=1.0 if options.device.startswith("cuda") else 0.0)


def replicas_on_host(deployments: tuple[Deployment, ...]) -> int:
    """By how many replicas a host's memory and threads are divided, at least 1.

    As if all shared one host. Ray packs replicas without a GPU onto as few machines as it can, so that on several
    machines this may be less than a replica could have; more would not be safe.
    """
    return max(1, sum(deployment.num_replicas for deployment in deployments))
