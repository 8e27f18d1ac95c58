"""What keys owe, in this process's memory: for tests, and for demonstrations with a single router."""

from collections.abc import Callable

from shardline_cluster.access.api_key import KeyLimits
from shardline_cluster.access.key_account import KeyAccount, counted_limits
from shardline_cluster.access.rate_limiter import LIFE_MS, Charge, Refusal
from shardline_cluster.processes.wall_clock import wall_clock_ms


class MemoryRateLimiter:
    """A `RateLimiter` that dies with its process."""

    def __init__(self, *, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._now_ms = now_ms
        self._accounts: dict[str, KeyAccount] = {}

    async def charge(self, key_id: str, limits: KeyLimits, charge: Charge) -> Refusal | None:
        """Charges a key for an attempt; None where that was taken, now or before."""
        return self._account(key_id).charge(counted_limits(limits), charge, self._now_ms())

    async def settle(self, key_id: str, limits: KeyLimits, request_id: str, *, used_tokens: int) -> None:
        """A request has ended and has used so many tokens in all."""
        self._account(key_id).settle(counted_limits(limits), request_id, used_tokens, self._now_ms())

    async def take_back(self, key_id: str, limits: KeyLimits, charge: Charge) -> None:
        """An attempt led to no new request."""
        self._account(key_id).take_back(counted_limits(limits), charge, self._now_ms())

    async def close(self) -> None:
        """Nothing to close."""

    def _account(self, key_id: str) -> KeyAccount:
        """The key's account; one that was not touched for long begins anew."""
        account = self._accounts.get(key_id)
        if account is None or self._now_ms() - account.at_ms >= LIFE_MS:
            account = self._accounts[key_id] = KeyAccount(self._now_ms())
        return account
