"""What one key owes, as a pure function of time: the arithmetic of `scripts/rate_limit.lua`, number for number.

All numbers are integers. Debts are counted in 1/60,000 of a request or token, so that what a limit of one a minute
drains in a millisecond is one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from shardline_cluster.access.api_key import KeyLimits
from shardline_cluster.access.rate_limiter import LARGEST_LIMIT, LIFE_MS, MOST_CHARGES, Charge, Limited, Refusal

UNIT = 60_000  # of one request or token

Limits = Mapping[Limited, int]  # a minute; what is not named has no limit


@dataclass(slots=True)
class _Debt:
    """What is owed of one kind, under the limit at which it was incurred."""

    limit: int
    units: int = 0

    def under(self, limit: int) -> None:
        """The limit is another one now: the same share of it is owed."""
        if limit != self.limit:
            self.units = math.ceil(self.units / self.limit * limit)
            self.limit = limit

    def excess(self, units: int) -> int:
        """What does not fit under a minute's worth."""
        return max(0, self.units + units - UNIT * self.limit)

    def add(self, units: int) -> None:
        """Owes more, or, where negative, less."""
        self.units = min(max(0, self.units + units), LIFE_MS * self.limit)


@dataclass(frozen=True, slots=True)
class _Reserve:
    """What the latest attempt to submit a request was charged."""

    attempt: str
    tokens: int


@dataclass(slots=True)
class KeyAccount:
    """One key. `now_ms` is any clock of milliseconds; where it goes back, no time has passed."""

    at_ms: int
    debts: dict[Limited, _Debt] = field(default_factory=dict)
    reserves: dict[str, _Reserve] = field(default_factory=dict)  # by request, the oldest first

    def charge(self, limits: Limits, charge: Charge, now_ms: int) -> Refusal | None:
        """Charges an attempt, unless that has been done or there is no room."""
        self._bring_up_to(now_ms, limits)
        if self._holds(charge):
            return None
        reserved = min(charge.tokens, limits.get(Limited.TOKENS, charge.tokens))
        costs = {Limited.REQUESTS: UNIT, Limited.TOKENS: UNIT * reserved}
        refusals = [r for kind, debt in self.debts.items() if (r := _refusal(kind, debt, costs[kind]))]
        if refusals:
            return max(refusals, key=lambda refusal: refusal.retry_after_ms)
        for kind, debt in self.debts.items():
            debt.add(costs[kind])
        self._remember(charge, reserved)
        return None

    def settle(self, limits: Limits, request_id: str, used_tokens: int, now_ms: int) -> None:
        """Replaces what was reserved by what was used."""
        self._bring_up_to(now_ms, limits)
        reserve = self.reserves.pop(request_id, None)
        if reserve is not None and Limited.TOKENS in self.debts:
            self.debts[Limited.TOKENS].add(UNIT * (used_tokens - reserve.tokens))

    def take_back(self, limits: Limits, charge: Charge, now_ms: int) -> None:
        """Makes a charge undone."""
        self._bring_up_to(now_ms, limits)
        if not self._holds(charge):
            return
        self.settle(limits, charge.request_id, 0, now_ms)
        if Limited.REQUESTS in self.debts:
            self.debts[Limited.REQUESTS].add(-UNIT)

    def _holds(self, charge: Charge) -> bool:
        reserve = self.reserves.get(charge.request_id)
        return reserve is not None and reserve.attempt == charge.attempt

    def _bring_up_to(self, now_ms: int, limits: Limits) -> None:
        elapsed_ms = min(max(0, now_ms - self.at_ms), LIFE_MS)
        self.at_ms = now_ms
        self.debts = {kind: self.debts.get(kind, _Debt(limit)) for kind, limit in limits.items()}
        for kind, debt in self.debts.items():
            debt.under(limits[kind])
            debt.add(-elapsed_ms * debt.limit)

    def _remember(self, charge: Charge, reserved: int) -> None:
        self.reserves.pop(charge.request_id, None)  # the latest stands at the end
        self.reserves[charge.request_id] = _Reserve(charge.attempt, reserved)
        if len(self.reserves) > MOST_CHARGES:
            self.reserves = dict(list(self.reserves.items())[MOST_CHARGES // 2 :])


def _refusal(kind: Limited, debt: _Debt, cost: int) -> Refusal | None:
    excess = debt.excess(cost)
    if not excess:
        return None
    return Refusal(kind, debt.limit, math.ceil(debt.units / UNIT), math.ceil(excess / debt.limit))


def counted_limits(limits: KeyLimits) -> Limits:
    """The limits that are there, none larger than what is counted exactly."""
    asked = {Limited.REQUESTS: limits.requests_per_minute, Limited.TOKENS: limits.tokens_per_minute}
    return {kind: min(limit, LARGEST_LIMIT) for kind, limit in asked.items() if limit is not None}
