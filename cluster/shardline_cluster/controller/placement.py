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


def replicas_on_host(deployments: tuple[Deployment, ...], num_hosts: int) -> int:
    """By how many replicas a host's memory and threads are divided: as if they were spread evenly, at least 1."""
    total = sum(deployment.num_replicas for deployment in deployments)
    return max(1, -(-total // max(1, num_hosts)))
