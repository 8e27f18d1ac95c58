"""Who asks, what he may do, and how long he waits."""

from dataclasses import dataclass, field

from shardline_cluster.access.api_key import KeyLimits, Scope

DEFAULT_TENANT = "default"  # of all who have shown no key, and of keys that name none


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One call's author. The tenant comes from the key, never from anything else that a client says."""

    tenant: str = DEFAULT_TENANT
    key_id: str = ""  # empty: he has shown no key
    key_digest: str = ""  # of the very key that was shown: after a rotation its id may stand for another one
    scopes: frozenset[Scope] = frozenset()
    limits: KeyLimits = field(default_factory=KeyLimits)
    time_remaining_s: float | None = None  # None: he has set no deadline
    traceparent: str = ""  # of the trace that his call belongs to, in W3C's words
