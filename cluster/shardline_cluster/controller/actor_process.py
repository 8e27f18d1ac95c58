"""What every actor's process needs beside its own work: variables, and to end with the raylet that started it."""

import os
import time
from types import MappingProxyType

from shardline_cluster.processes.process_identity import ProcessIdentity

ORPHAN_CHECK_S = 0.5
# A collective that fails must end its process, so that the gang fails at once instead of waiting for a dead peer.
ENVIRONMENT = MappingProxyType({"TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"})


def exit_when_orphaned(parent: int) -> None:
    """Ends this process once the raylet that started it is gone, dead but not yet reaped included.

    Ray does the same for a raylet that was reaped; after one that stays a zombie its actors would live on, unseen.
    """
    raylet = ProcessIdentity.of(parent)
    while os.getppid() == parent and not raylet.gone():
        time.sleep(ORPHAN_CHECK_S)
    os._exit(1)
