"""A scripted router as a process of its own, so that a test can kill it: prints its address, then serves until killed.

Any request that it is asked for exists, so that two such processes are routers of one cluster.
"""

import sys
import threading

from tests.cluster.client.scripted_router import ScriptedCluster, ScriptedRequest, ScriptedRouter, pieces_of

TEXT = "A text that outlives the router that began it."


class SharedCluster(ScriptedCluster):
    """A cluster whose requests every process knows without being told."""

    def find(self, request_id: str) -> ScriptedRequest:
        """The request of this id, whoever accepted it."""
        return ScriptedRequest(request_id, [pieces_of(TEXT)])


def main(pause_after: str) -> None:
    """Serves; streams stop after `pause_after` events (0: they do not)."""
    router = ScriptedRouter(SharedCluster([TEXT]), pause_after=int(pause_after) or None)
    print(router.address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
