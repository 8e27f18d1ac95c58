"""How much a leader asks for: only what will enter its next step, so that the rest stays free for other replicas."""

from collections.abc import Iterable
from dataclasses import dataclass

from shardline_workers.engine import Capacity, EngineRequest


@dataclass(frozen=True, slots=True)
class ClaimSize:
    """Room for one claim, at least 1 each."""

    free_slots: int
    free_tokens: int


def claim_size(
    capacity: Capacity, starting: Iterable[EngineRequest], *, uncommitted_tokens: int, most_uncommitted_tokens: int
) -> ClaimSize | None:
    """Room that is left, or None for no claim.

    `capacity` is what the engine told after its last step, `starting` what it was not handed yet. A leader that cannot
    commit fast enough asks for nothing.
    """
    requests = tuple(starting)
    slots = capacity.free_slots - sum(_num_open(r) for r in requests)
    tokens = capacity.free_tokens - sum(_num_tokens(r) for r in requests)
    if slots < 1 or tokens < 1 or uncommitted_tokens >= most_uncommitted_tokens:
        return None
    return ClaimSize(slots, tokens)


def _num_open(request: EngineRequest) -> int:
    return sum(not s.finished for s in request.sequences)


def _num_tokens(request: EngineRequest) -> int:
    """As the engine will count: the prompt, what was generated, one more for each open sequence."""
    generated = sum(len(s.generated_ids) for s in request.sequences if not s.finished)
    return len(request.prompt_ids) + generated + _num_open(request)
