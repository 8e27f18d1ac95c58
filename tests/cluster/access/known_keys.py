"""Keys for tests, and what clients show."""

from typing import Any

from shardline_cluster.access.api_key import ApiKey
from shardline_cluster.access.key_secret import digest_of

NOW_MS = 1_800_000_000_000  # 2027-01-15T08:00:00Z


def a_secret(key_id: str) -> str:
    return f"sl-{key_id}-0123456789abcdef"


def a_key(key_id: str, **changes: Any) -> ApiKey:
    fields: dict[str, Any] = {"id": key_id, "digest": digest_of(a_secret(key_id)), "tenant": f"tenant-{key_id}"}
    return ApiKey(**(fields | changes))


def showing(secret: str) -> dict[str, str]:
    """Metadata of a call."""
    return {"authorization": f"Bearer {secret}"}


class Clock:
    """A time of day that only the test moves."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms
