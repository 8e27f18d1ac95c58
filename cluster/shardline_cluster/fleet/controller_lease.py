"""Who may keep the replicas of a cluster: one controller at a time, for as long as it renews its lease.

Two controllers of one cluster would each stop what the other has started. A holder is what there can be only one of: a
folder of replicas on a host, a named actor in a Ray cluster; so a controller's next life goes on with its lease.
"""

from typing import Protocol

from shardline_cluster.errors import ShardlineError

LEASE_S = 5.0
RENEWAL_S = 1.0  # a few may be lost before the lease is


class NotInChargeError(ShardlineError):
    """Another controller keeps this cluster's replicas."""

    code = "FAILED_PRECONDITION"
    retryable = True

    def __init__(self, cluster: str, holder: str) -> None:
        super().__init__(
            f"another controller ({holder}) keeps the replicas of the cluster {cluster!r}: stop it, or start this one "
            "under another name"
        )


class ControllerLease(Protocol):
    """The lease of one cluster, asked for by one holder. All methods raise QueueUnavailableError."""

    async def renew(self) -> None:
        """Takes the lease, or prolongs it.

        Raises:
            NotInChargeError: somebody else has it.
        """
        ...

    async def holder(self) -> str:
        """Who has it; empty where nobody does."""
        ...

    async def release(self) -> None:
        """Gives it back, if this holder has it."""
        ...

    async def close(self) -> None:
        """Closes connections."""
        ...
