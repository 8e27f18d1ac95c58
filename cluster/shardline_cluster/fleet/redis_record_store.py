"""Versioned records in Redis: one hash for each kind, name → `REVISION JSON`; the JSON of a deleted one is `null`."""

from collections.abc import Mapping
from typing import Generic, TypeVar

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.json_encoding import from_json, to_json
from shardline_cluster.fleet.remembered_records import TOMBSTONE_KEPT_MS
from shardline_cluster.fleet.versioned_records import Versioned
from shardline_cluster.queue.redis_key import RedisKey

T = TypeVar("T")

NUM_CONNECTIONS = 2
DELETED = b"null"

# KEYS[1] the hash; ARGV: name, revision, JSON, how long tombstones are kept in ms, the highest revision that may be
# replaced. Answers what stands under the name.
# Tombstones whose time is over go on the way: nobody remembers a record that old without knowing of its deletion.
_PUT = """\
local stood = redis.call('HGET', KEYS[1], ARGV[1])
local revision = stood and tonumber(string.match(stood, '^%d+'))
if revision and (revision >= tonumber(ARGV[2]) or revision > tonumber(ARGV[5])) then return stood end
local given = ARGV[2] .. ' ' .. ARGV[3]
redis.call('HSET', KEYS[1], ARGV[1], given)
local time = redis.call('TIME')
local oldest = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) - tonumber(ARGV[4])
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local deleted = string.match(all[i + 1], '^(%d+) null$')
  if deleted and tonumber(deleted) < oldest then redis.call('HDEL', KEYS[1], all[i]) end
end
return given
"""


class RedisRecordStore(Generic[T]):
    """`RecordStore` over one hash. Belongs to one event loop; a call is one attempt."""

    def __init__(self, url: str, *, key: str, kind: type[T], call_timeout_s: float = 1.0) -> None:
        """Connects with the first call.

        Args:
            url: of the server.
            key: of the hash; see `lane_names`.
            kind: the dataclass of a record's value.
            call_timeout_s: after which a call counts as not answered.
        """
        self._key = RedisKey(url, key, timeout_s=call_timeout_s, num_connections=NUM_CONNECTIONS)
        self._kind = kind
        self._last: dict[bytes, tuple[bytes, Versioned[T]]] = {}  # by name: the text that was read, and what it says

    async def put(self, name: str, record: Versioned[T], *, known: int | None = None) -> Versioned[T]:
        """See `RecordStore`.

        Raises:
            ConfigurationError: what stands there was written by another version, and cannot be read.
        """
        text = DELETED.decode() if record.value is None else to_json(record.value)
        replaceable = record.revision if known is None else known
        stands = await self._key.evaluate(_PUT, name, record.revision, text, TOMBSTONE_KEPT_MS, replaceable)
        return self._read(name, stands)

    async def all(self) -> Mapping[str, Versioned[T]]:
        """See `RecordStore`. What has not changed since the last time is not read anew: a router looks each second, and
        thousands of keys would hold up its streams for a tenth of one.

        Raises:
            ConfigurationError: one was written by another version, and cannot be read.
        """
        flat = await self._key.execute("HGETALL")
        self._last = {name: (text, self._known(name, text)) for name, text in zip(flat[::2], flat[1::2], strict=True)}
        return {name.decode(): record for name, (_, record) in self._last.items()}

    async def close(self) -> None:
        """See `RecordStore`."""
        await self._key.close()

    def _known(self, name: bytes, text: bytes) -> Versioned[T]:
        last_text, record = self._last.get(name, (b"", None))
        return record if record is not None and last_text == text else self._read(name.decode(), text)

    def _read(self, name: str, text: bytes) -> Versioned[T]:
        revision, _, body = text.partition(b" ")
        if not revision.isdigit():
            raise ConfigurationError(
                f"the record {name!r} in {self._key.name} does not begin with its revision: another version, or another"
                " program, wrote it; delete it, or use another prefix"
            )
        return Versioned(int(revision), None if body == DELETED else from_json(self._kind, body))
