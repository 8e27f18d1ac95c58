"""A gate for tests: whoever shows a key's name has that key, with limits that a test may change at any time."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from shardline_cluster.access.api_key import KeyLimits, Scope
from shardline_cluster.access.caller import Caller
from shardline_cluster.access.gate import AUTHORIZATION
from shardline_cluster.errors import ShardlineError

Metadata = tuple[tuple[str, str], ...]


class LimitedGate:
    """Keys by name; each is of a tenant of the same name."""

    def __init__(self, **limits: KeyLimits) -> None:
        self.limits = limits

    def admit(self, metadata: Mapping[str, str], *, time_remaining_s: float | None) -> Caller:
        key_id = metadata[AUTHORIZATION].removeprefix("Bearer ")
        return Caller(
            tenant=key_id,
            key_id=key_id,
            scopes=frozenset(Scope),
            limits=self.limits[key_id],
            time_remaining_s=time_remaining_s,
        )

    @contextmanager
    def watch(self, _caller: Caller) -> "Iterator[asyncio.Future[ShardlineError]]":
        yield asyncio.get_running_loop().create_future()


def showing(key_id: str) -> Metadata:
    """The metadata of a call that shows a key."""
    return ((AUTHORIZATION, f"Bearer {key_id}"),)
