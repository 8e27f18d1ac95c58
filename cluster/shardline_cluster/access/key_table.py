"""All keys that a router knows, whoever brought them: the store's, the keys file's, those of flags.

Pure: what was read goes in, who is known comes out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from shardline_cluster.access.api_key import ApiKey
from shardline_cluster.errors import UnauthenticatedError
from shardline_cluster.fleet.versioned_records import Versioned


class KeySource(Enum):
    """Who brought a key. Of one key from two of them the later one here counts: who starts a router commands it."""

    ADMIN = "admin"  # the Admin service, which keeps it in the store
    FILE = "file"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that counts until it expires."""

    key: ApiKey
    source: KeySource


_ENDED = {
    KeySource.ADMIN: "was revoked",
    KeySource.FILE: "was taken out of the keys file",
    KeySource.FLAG: "was taken away",
}


class KeyTable:
    """Keys by the digest of their secret. Belongs to one event loop."""

    def __init__(self) -> None:
        self._given: dict[KeySource, tuple[ApiKey, ...]] = {}
        self._living: dict[str, KnownKey] = {}  # by digest; expired ones too
        self._ended: dict[str, KnownKey] = {}  # by digest: those that counted once, to tell it from never
        self._any_seen = False

    @property
    def store_answered(self) -> bool:
        """Whether the store has ever been read: until then an unknown key may be a good one."""
        return KeySource.ADMIN in self._given

    @property
    def any_seen(self) -> bool:
        """Whether there has ever been a key, also one that was revoked."""
        return self._any_seen

    def give_records(self, records: Mapping[str, Versioned[ApiKey]]) -> None:
        """Takes all records of the store that are known, by id, those of revoked keys too."""
        self._any_seen |= bool(records)
        self.give(KeySource.ADMIN, [record.value for record in records.values() if record.value is not None])

    def give(self, source: KeySource, keys: Sequence[ApiKey]) -> None:
        """Takes all keys of a source, in the place of those before."""
        if self._given.get(source) == tuple(keys):
            return
        self._given[source] = tuple(keys)
        living = {key.digest: KnownKey(key, source) for source in KeySource for key in self._given.get(source, ())}
        known = self._ended | self._living
        self._ended = {digest: was for digest, was in known.items() if digest not in living}
        self._living = living
        self._any_seen |= bool(living)

    def known(self) -> Sequence[KnownKey]:
        """All keys that are not revoked, expired ones too, in order of ids."""
        return sorted(self._living.values(), key=lambda known: known.key.id)

    def find(self, digest: str, now_ms: int) -> ApiKey | None:
        """The key of this digest, or None where there has never been one. `now_ms` is since 1970.

        Raises:
            UnauthenticatedError: it counts no more.
        """
        ended = self._ended.get(digest)
        if ended is not None:
            raise UnauthenticatedError(f"the key {ended.key.id} {_ENDED[ended.source]}: use another one")
        known = self._living.get(digest)
        if known is None:
            return None
        if is_expired(known.key, now_ms):
            raise UnauthenticatedError(f"the key {known.key.id} expired at {_instant(known.key)}: use another one")
        return known.key


def is_expired(key: ApiKey, now_ms: int) -> bool:
    """Whether its time is over. `now_ms` is since 1970."""
    return key.expires_ms is not None and now_ms >= key.expires_ms


def _instant(key: ApiKey) -> str:
    assert key.expires_ms is not None, "only a key that expires has expired"
    return datetime.fromtimestamp(key.expires_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
