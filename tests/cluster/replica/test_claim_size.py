"""A leader asks for what it has room for, and not for what it has promised away already."""

from shardline_cluster.replica.claim_size import ClaimSize, claim_size
from shardline_workers.engine import Capacity, EngineRequest, Sampling, SequenceStart

STARTING = EngineRequest(
    request_id="a",
    prompt_ids=(1, 2, 3),
    sampling=Sampling(),
    sequences=(SequenceStart(generated_ids=(4, 5)), SequenceStart(finished=True), SequenceStart()),
)


def _size(capacity: Capacity, *starting: EngineRequest, uncommitted: int = 0) -> ClaimSize | None:
    return claim_size(capacity, starting, uncommitted_tokens=uncommitted, most_uncommitted_tokens=100)


def test_all_that_is_free_is_asked_for() -> None:
    assert _size(Capacity(4, 1000)) == ClaimSize(4, 1000)


def test_what_the_engine_was_not_handed_yet_counts_by_its_open_sequences() -> None:
    assert _size(Capacity(4, 1000), STARTING) == ClaimSize(2, 1000 - 3 - 2 - 2)


def test_without_a_slot_or_a_token_nothing_is_asked_for() -> None:
    assert _size(Capacity(0, 1000)) is None
    assert _size(Capacity(4, 0)) is None
    assert _size(Capacity(2, 1000), STARTING) is None


def test_a_leader_that_cannot_commit_asks_for_nothing() -> None:
    assert _size(Capacity(4, 1000), uncommitted=99) is not None
    assert _size(Capacity(4, 1000), uncommitted=100) is None
