"""How much a key may use a minute, over all routers together.

A key owes two things: requests and tokens. What it owes drains at the rate of its limit, so that a whole minute's worth
is gone in a minute; a request is let in if what it costs still finds room under one minute's worth. So over any time T
a key is let in for at most limit × (T + one minute), and what was given back: the *burst* is one minute's worth.

- One request, and its prompt and all that it may generate, are charged before it is submitted. More tokens than a whole
  minute's worth count as a minute's worth: such a request runs while the key runs nothing else.
- At the end the charge is settled: what was reserved and not used is given back, what was used beyond is owed as well.
- One attempt to submit a request is charged once, however often the charge is sent, and settled once. Another attempt
  is charged again: it comes only where the request is not there, and nobody can tell whether it has run meanwhile and
  was deleted. That is remembered of the latest `MOST_CHARGES` charges of a key, and for `LIFE_MS` after its last one.
- Limits that change count at once, and what is owed keeps its share of the limit.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from shardline_cluster.access.api_key import KeyLimits

MOST_CHARGES = 1024  # when there are more, the older half is forgotten
LIFE_MS = 3_600_000  # of what is known of a key after its last charge; nobody owes more than drains in this time
LARGEST_LIMIT = 1_000_000_000  # a minute: up to here arithmetic is exact


class Limited(Enum):
    """What a limit is about."""

    REQUESTS = "requests"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Charge:
    """What one request costs before it runs."""

    request_id: str
    tokens: int  # of the prompt and of everything that it may generate
    attempt: str = field(kw_only=True)  # to submit it: drawn anew for each one, hexadecimal


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not let in. Nothing was charged."""

    limited: Limited
    limit: int  # a minute
    used: int  # of it, and not drained yet
    retry_after_ms: int  # after exactly this time the same charge is taken, if nobody else comes first


class RateLimiter(Protocol):
    """What keys owe. Each method is atomic, and makes one attempt.

    All raise QueueUnavailableError where no answer came: the same call again has the same outcome.
    """

    async def charge(self, key_id: str, limits: KeyLimits, charge: Charge) -> Refusal | None:
        """Charges a key for an attempt; None where that was taken, now or before."""
        ...

    async def settle(self, key_id: str, limits: KeyLimits, request_id: str, *, used_tokens: int) -> None:
        """A request has ended and has used so many tokens in all: its latest charge is replaced by that. Does nothing
        where that was told before.
        """
        ...

    async def take_back(self, key_id: str, limits: KeyLimits, charge: Charge) -> None:
        """An attempt led to no new request: it costs nothing. Does nothing where a later one was charged."""
        ...

    async def close(self) -> None:
        """Closes connections."""
        ...
