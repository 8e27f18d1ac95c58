"""A short proof of what a leader holds, so that a commit's reply need not carry the whole list.

Leader and queue compute it alike: SHA-1 (what Lua offers as `redis.sha1hex`) of the sorted lines `ID:EPOCH:NONCEHEX`,
joined by newlines without one at the end. It guards against drift, not against an attacker.
"""

import hashlib
from collections.abc import Iterable

from shardline_cluster.queue.records import Grant


def held_digest(held: Iterable[tuple[str, Grant]]) -> str:
    """Digest of granted requests, in whatever order they come: 40 hexadecimal digits."""
    lines = sorted(f"{request_id}:{grant.epoch}:{grant.nonce.hex()}" for request_id, grant in held)
    return hashlib.sha1("\n".join(lines).encode(), usedforsecurity=False).hexdigest()
