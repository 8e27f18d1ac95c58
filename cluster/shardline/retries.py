"""What a client tells whoever wants to know while it tries again by itself."""

from collections.abc import Callable
from dataclasses import dataclass

from shardline.call_failure import CallFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A try that ended without its answer, and will be followed by another one."""

    method: str  # of the service, such as Generate or Resume
    endpoint: str  # the router that was asked
    reason: str  # gRPC's code and text
    is_refusal: bool  # the router is there, and asked to come again later
    outage_s: float  # time without a connection so far; 0 for a refusal
    wait_s: float  # until the next try


# Called by the thread, or in the event loop, that waits; it must return soon, and what it raises ends the call.
OnRetry = Callable[[Retry], None]


def retry_of(failure: CallFailure, *, method: str, endpoint: str, outage_s: float, wait_s: float) -> Retry:
    """What is told of a failed try."""
    return Retry(
        method=method,
        endpoint=endpoint,
        reason=f"{failure.code}: {failure.details}" if failure.details else failure.code,
        is_refusal=failure.refused,
        outage_s=0.0 if failure.refused else outage_s,
        wait_s=wait_s,
    )
