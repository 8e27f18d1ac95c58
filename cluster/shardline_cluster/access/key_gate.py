"""The gate of a cluster with keys, or of one that may get some: see `AccessRules` and docs/security.md."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from shardline_cluster.access.access_rules import AccessRules
from shardline_cluster.access.api_key import Scope
from shardline_cluster.access.caller import Caller
from shardline_cluster.access.gate import AUTHORIZATION
from shardline_cluster.access.key_secret import digest_of
from shardline_cluster.access.key_table import KeyTable
from shardline_cluster.access.open_gate import EVERYTHING
from shardline_cluster.errors import QueueUnavailableError, ShardlineError, UnauthenticatedError

_HOW_TO_SHOW = (
    "show one in the metadata `authorization: Bearer KEY` (as `shardline` does with SHARDLINE_API_KEY or its flag "
    "--api-key, and its clients with api_key)"
)


class KeyGate:
    """A `Gate` over a table of keys, which others keep up to date."""

    def __init__(self, rules: AccessRules, table: KeyTable, *, now_ms: Callable[[], int]) -> None:
        """`now_ms` is the time of day, since 1970."""
        self._rules = rules
        self._table = table
        self._now_ms = now_ms
        self._watching: dict[str, set[asyncio.Future[ShardlineError]]] = {}  # by digest

    def admit(self, metadata: Mapping[str, str], *, time_remaining_s: float | None) -> Caller:
        """See `Gate.admit`.

        Raises:
            QueueUnavailableError: Redis, which may know the key, has not answered yet.
        """
        shown = metadata.get(AUTHORIZATION)
        if shown is None:
            return Caller(scopes=self._scopes_without_key(), time_remaining_s=time_remaining_s)
        digest = digest_of(_key_in(shown))
        key = self._table.find(digest, self._now_ms())
        if key is None:
            raise self._unknown()
        return Caller(
            tenant=key.tenant,
            key_id=key.id,
            key_digest=digest,
            scopes=key.scopes,
            limits=key.limits,
            time_remaining_s=time_remaining_s,
        )

    @contextmanager
    def watch(self, caller: Caller) -> "Iterator[asyncio.Future[ShardlineError]]":
        """See `Gate.watch`. Whoever came in without a key stays."""
        future: asyncio.Future[ShardlineError] = asyncio.get_running_loop().create_future()
        if not caller.key_digest:
            yield future
            return
        watching = self._watching.setdefault(caller.key_digest, set())
        watching.add(future)
        self._shut_out(caller.key_digest)  # it may have ended since the caller was admitted
        try:
            yield future
        finally:
            watching.discard(future)
            if not watching and self._watching.get(caller.key_digest) is watching:
                del self._watching[caller.key_digest]

    def shut_out(self) -> None:
        """Ends the watches of all keys that do not count any more. To be called after each change and now and then,
        since time alone ends keys too.
        """
        for digest in list(self._watching):
            self._shut_out(digest)

    def _shut_out(self, digest: str) -> None:
        try:
            self._table.find(digest, self._now_ms())
        except UnauthenticatedError as error:
            for future in self._watching[digest]:
                if not future.done():
                    future.set_result(UnauthenticatedError(str(error)))  # each its own: raising writes into it

    def _scopes_without_key(self) -> frozenset[Scope]:
        if self._rules.allow_unauthenticated:
            return frozenset({Scope.GENERATE})
        if self._rules.keys_required or self._table.any_seen:
            raise UnauthenticatedError(f"no key was shown, but this cluster asks for one: {_HOW_TO_SHOW}")
        if not self._table.store_answered:
            raise _not_known_yet()
        return EVERYTHING  # there are no keys, so only this machine can get here

    def _unknown(self) -> ShardlineError:
        if not self._table.store_answered:
            return _not_known_yet()
        if self._table.any_seen:
            return UnauthenticatedError("the key that was shown is not known here: show the whole of a valid one")
        if self._rules.keys_required:
            return UnauthenticatedError(
                "a key was shown, but this cluster has none yet, and asks for one: give a router one by --api-key or "
                "--api-keys-file, and make others with it"
            )
        return UnauthenticatedError("a key was shown, but this cluster has none: show no key, or make one first")


def _not_known_yet() -> QueueUnavailableError:
    return QueueUnavailableError("the keys are not known yet, since Redis has not answered: try again")


def _key_in(shown: str) -> str:
    scheme, _, key = shown.strip().partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise UnauthenticatedError(f"the metadata `authorization` is not of the form `Bearer KEY`: {_HOW_TO_SHOW}")
    return key
