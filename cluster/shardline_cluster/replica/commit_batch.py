"""Which held requests one commit takes, and when the next commit is due."""

from collections.abc import Iterable

from shardline_cluster.queue.calls import CommitEntry
from shardline_cluster.replica.held_request import HeldRequest

MAX_COMMIT_REQUESTS = 256  # bounded work for one script
MAX_COMMIT_BYTES = 1 << 20  # of ids and log-probabilities; one request always fits


def is_due(request: HeldRequest, now: float) -> bool:
    """Whether the next commit is to name a request."""
    return request.pending and not request.restoring and request.not_before <= now


def commit_batch(held: Iterable[HeldRequest], now: float) -> tuple[CommitEntry, ...]:
    """Everything that the log lacks by now, within the bounds of one call; the rest waits for the next one."""
    entries: list[CommitEntry] = []
    num_bytes = 0
    for request in held:
        if not is_due(request, now):
            continue
        entry = request.entry()
        num_bytes += sum(len(s.ids) + len(s.logprobs) for s in entry.sequences)
        if entries and (num_bytes > MAX_COMMIT_BYTES or len(entries) == MAX_COMMIT_REQUESTS):
            break
        entries.append(entry)
    return tuple(entries)


def commit_due_at(held: Iterable[HeldRequest], *, heartbeat_at: float) -> float:
    """Instant of the next commit: at once for new tokens, later for a finish that a hold refused, else a heartbeat."""
    return min((h.not_before for h in held if h.pending and not h.restoring), default=heartbeat_at)
