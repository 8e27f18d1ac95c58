"""Start-time fair queueing over tenants, by tokens (Goyal, Vin, Cheng 1996), and how fast the lane drains."""

from collections.abc import Set
from dataclasses import dataclass, field
from math import ceil

from shardline_cluster.queue.memory_record import MemoryRecord

MEAN_WEIGHT = 1 / 16  # of a new sample in a running mean: some dozens of requests of memory


@dataclass(slots=True)
class FairShares:
    """Each tenant's virtual time in tokens ÷ weight, and the lane's own."""

    times: dict[str, float] = field(default_factory=dict)
    lane_time: float = 0.0
    mean_output_tokens: float = 0.0  # of a sequence; 0 until a request has ended with tokens

    def activate(self, tenant: str) -> None:
        """Lifts a tenant that had nothing in the lane to the lane's time: idling saves nothing up."""
        self.times[tenant] = max(self.times.get(tenant, 0.0), self.lane_time)

    def time_of(self, tenant: str) -> float:
        """The tenant's virtual time; the least is served first."""
        return self.times.get(tenant, self.lane_time)

    def charge(self, record: MemoryRecord, weight: float) -> None:
        """Charges a first claim with the prompt and the expected output."""
        if record.charged_tokens is not None:
            return
        submission = record.info.submission
        output = min(submission.max_tokens, self.mean_output_tokens or submission.max_tokens)
        self.lane_time = max(self.lane_time, self.time_of(record.tenant))
        record.charged_tokens = max(1, ceil(submission.prompt_tokens + submission.num_sequences * output))
        self.times[record.tenant] = self.time_of(record.tenant) + record.charged_tokens / weight

    def settle(self, record: MemoryRecord, weight: float) -> None:
        """Replaces what was expected of an ended request by what it was."""
        if record.charged_tokens is None or record.end is None:
            return
        output = sum(record.lengths)
        used = record.info.submission.prompt_tokens + output
        self.times[record.tenant] = self.time_of(record.tenant) + (used - record.charged_tokens) / weight
        self.mean_output_tokens = running_mean(self.mean_output_tokens or None, output / len(record.lengths))

    def forget_idle(self, active: Set[str]) -> None:
        """Drops the times of tenants that have nothing in the lane and that the lane's time has reached.

        A lane without work begins anew: its time catches up with all, and no debt outlives what it was incurred over.
        """
        if not active:
            self.lane_time = max((self.lane_time, *self.times.values()))
        self.times = {t: time for t, time in self.times.items() if t in active or time > self.lane_time}


@dataclass(slots=True)
class DrainRate:
    """How long the lane takes for one claim while something waits."""

    per_request_ms: float | None = None
    last_claim_ms: int = 0

    def claimed(self, now_ms: int, waiting_since_ms: int) -> None:
        """Counts a request that left the queue; time in which nothing waited does not count."""
        self.per_request_ms = running_mean(self.per_request_ms, now_ms - max(self.last_claim_ms, waiting_since_ms))
        self.last_claim_ms = now_ms

    def wait_ms(self, num_requests: float) -> int | None:
        """How long so many requests take to leave the queue; None while nothing is known."""
        return None if self.per_request_ms is None else round(num_requests * self.per_request_ms)


def running_mean(mean: float | None, sample: float) -> float:
    """An exponentially weighted mean, begun with its first sample."""
    return float(sample) if mean is None else mean + (sample - mean) * MEAN_WEIGHT
