"""The gate through which every call comes: it turns what a client shows into a caller, or refuses."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from shardline_cluster.access.caller import Caller
from shardline_cluster.errors import ShardlineError

AUTHORIZATION = "authorization"  # metadata: `Bearer KEY`


class Gate(Protocol):
    """Lives on one event loop; needs no input or output for a call."""

    def admit(self, metadata: Mapping[str, str], *, time_remaining_s: float | None) -> Caller:
        """The caller behind a call's metadata (names in lower case).

        Raises:
            UnauthenticatedError: no key was shown where one is needed, or one that is wrong, expired or revoked.
        """
        ...

    def watch(self, caller: Caller) -> "AbstractContextManager[asyncio.Future[ShardlineError]]":
        """While it is open: a future that is done, with what to tell the client, once the caller's key does not count
        any more (revoked, expired).
        """
        ...
