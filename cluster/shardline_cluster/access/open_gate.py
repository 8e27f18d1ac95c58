"""The gate of a cluster without keys."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from shardline_cluster.access.api_key import Scope
from shardline_cluster.access.caller import Caller
from shardline_cluster.errors import ShardlineError

EVERYTHING = frozenset(Scope)


class OpenGate:
    """A `Gate` that lets everybody in as the default tenant."""

    def admit(self, _metadata: Mapping[str, str], *, time_remaining_s: float | None) -> Caller:
        """See `Gate.admit`."""
        return Caller(scopes=EVERYTHING, time_remaining_s=time_remaining_s)

    def watch(self, _caller: Caller) -> "AbstractContextManager[asyncio.Future[ShardlineError]]":
        """See `Gate.watch`: nobody is ever shut out."""
        return _never()


@contextmanager
def _never() -> "Iterator[asyncio.Future[ShardlineError]]":
    yield asyncio.get_running_loop().create_future()
