"""What a request costs the key behind it: charged before it is submitted, settled where its end is told.

Knows nothing of where keys' debts are counted. Keys without limits cost no call. A request that exists already, found
again by its idempotency key or resumed, is not charged; one that was deleted and is sent again is. An end that no
router tells its client (a background request that nobody asks for, a client that went away) settles nothing: then what
was reserved counts as used.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shardline_cluster.access.api_key import KeyLimits
from shardline_cluster.access.caller import Caller
from shardline_cluster.access.rate_limiter import Charge, RateLimiter, Refusal
from shardline_cluster.errors import OverLimitError, QueueUnavailableError, RateLimitedError
from shardline_cluster.queue.records import RequestEnd, Submission
from shardline_cluster.queue.tenant_usage import completion_tokens, num_outputs
from shardline_cluster.router.background_tasks import BackgroundTasks

T = TypeVar("T")
log = logging.getLogger(__name__)

PAUSE_S = 0.05  # before a call that got no answer is sent again
UNLIMITED = KeyLimits()


class KeyCharges:
    """The charges of one router's requests. Belongs to one event loop."""

    def __init__(self, limiter: RateLimiter, *, patience_s: float = 3.0) -> None:
        """`patience_s`: for how long a call that gets no answer is sent again."""
        self._limiter = limiter
        self._patience_s = patience_s
        self._tasks = BackgroundTasks("the limits of keys")

    async def charge(
        self, caller: Caller, submission: Submission, *, is_known: Callable[[], Awaitable[bool]]
    ) -> Charge | None:
        """Charges the caller's key for a request that is about to be submitted, unless `is_known` finds it.

        Raises as `charge_new`.
        """
        if caller.limits == UNLIMITED or (submission.idempotency_key is not None and await is_known()):
            return None
        return await self.charge_new(caller, submission)

    async def charge_new(self, caller: Caller, submission: Submission) -> Charge | None:
        """Charges the caller's key for a request that is sure to be a new one; None where the key has no limits.

        Raises:
            RateLimitedError: the key has no room for it now.
            OverLimitError: it never will.
            QueueUnavailableError: nobody can say.
        """
        if caller.limits == UNLIMITED:
            return None
        _check_prompt(caller, submission)
        tokens = submission.prompt_tokens + num_outputs(submission) * submission.max_tokens
        charge = Charge(submission.id, tokens, attempt=secrets.token_hex(8))
        refusal = await self._patiently(lambda: self._limiter.charge(caller.key_id, caller.limits, charge))
        if refusal is not None:
            raise _refused(caller, refusal)
        return charge

    async def take_back(self, caller: Caller, charge: Charge | None) -> None:
        """What was charged led to no new request. Returns before the client hears of it, who may come again at once."""
        if charge is not None:
            await self._try(lambda: self._limiter.take_back(caller.key_id, caller.limits, charge))

    def settle(self, caller: Caller, submission: Submission, end: RequestEnd) -> None:
        """The request's end is told to this caller. Does nothing where another key was charged for it."""
        if caller.limits.tokens_per_minute is None:
            return
        used = submission.prompt_tokens + completion_tokens(submission, end)
        settled = self._try(lambda: self._limiter.settle(caller.key_id, caller.limits, submission.id, used_tokens=used))
        self._tasks.spawn(settled)

    async def close(self) -> None:
        """Ends what is still under way. The limiter stays open."""
        await self._tasks.cancel_all()

    async def _try(self, attempt: Callable[[], Awaitable[None]]) -> None:
        try:
            await self._patiently(attempt)
        except QueueUnavailableError as error:
            log.warning("a key keeps owing what a request did not use: %s", error)

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._patience_s
        while True:
            try:
                return await attempt()
            except QueueUnavailableError as error:
                if loop.time() + PAUSE_S >= give_up:
                    log.debug("the limits of keys cannot be counted: %s", error)
                    # The error itself tells where Redis is, which is no client's business.
                    raise QueueUnavailableError("nobody can say now what this key has used: try again") from error
            await asyncio.sleep(PAUSE_S)


def _check_prompt(caller: Caller, submission: Submission) -> None:
    limit = caller.limits.tokens_per_minute
    if limit is not None and submission.prompt_tokens > limit:
        raise OverLimitError(
            f"the prompt has {submission.prompt_tokens} tokens, but the key {caller.key_id} may use {limit} tokens a "
            "minute, so that it can never be taken: shorten the prompt, or ask whoever runs the cluster for more"
        )


def _refused(caller: Caller, refusal: Refusal) -> RateLimitedError:
    what, retry_after_s = refusal.limited.value, refusal.retry_after_ms / 1000
    return RateLimitedError(
        f"the key {caller.key_id} may use {refusal.limit} {what} a minute and has used {refusal.used}, too many for "
        f"this request: try again in {retry_after_s:g} s, or ask whoever runs the cluster for more",
        retry_after_s=retry_after_s,
    )
