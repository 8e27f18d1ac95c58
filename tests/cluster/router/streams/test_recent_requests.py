"""A router's memory ages only while the same server answers."""

from typing import cast

from shardline_cluster.queue.records import RequestInfo, SequenceLog
from shardline_cluster.router.streams.recent_requests import RecentRequests
from tests.cluster.router.stepped_router import submission


def _info(name: str) -> RequestInfo:
    return RequestInfo(submission=submission(name, "i"), submitted_ms=0, deadline_ms=None)


def _names(recent: RecentRequests) -> list[str]:
    return [request.info.id for request in recent]


def _answer_each_second(recent: RecentRequests, begin_s: int, end_s: int) -> None:
    for second in range(begin_s, end_s):
        recent.answered(second * 1000, new_identity=False)


def test_what_is_old_goes_and_what_is_young_stays() -> None:
    recent = RecentRequests(lately_ms=3000, longest_pause_ms=2000)
    recent.remember(_info("a"), [SequenceLog()], None)
    _answer_each_second(recent, 0, 3)
    recent.remember(_info("b"), [SequenceLog()], None)

    _answer_each_second(recent, 3, 5)

    assert _names(recent) == ["b"]


def test_remembering_again_begins_the_term_anew() -> None:
    recent = RecentRequests(lately_ms=3000, longest_pause_ms=2000)
    recent.remember(_info("a"), [SequenceLog()], None)
    _answer_each_second(recent, 0, 3)
    recent.remember(_info("a"), [SequenceLog(b"1234")], None)

    _answer_each_second(recent, 3, 5)

    found = recent.get("a")
    assert found is not None
    assert found.logs == (SequenceLog(b"1234"),)


def test_an_outage_counts_as_the_longest_pause_only() -> None:
    recent = RecentRequests(lately_ms=3000, longest_pause_ms=2000)
    recent.answered(0, new_identity=False)
    recent.remember(_info("a"), [SequenceLog()], None)

    recent.answered(1_000_000, new_identity=False)

    assert _names(recent) == ["a"]


def test_a_new_identity_begins_every_term_anew() -> None:
    recent = RecentRequests(lately_ms=3000, longest_pause_ms=2000)
    recent.remember(_info("a"), [SequenceLog()], None)
    _answer_each_second(recent, 0, 3)

    recent.answered(3000, new_identity=True)
    _answer_each_second(recent, 4, 6)

    assert _names(recent) == ["a"]


def test_what_is_dropped_is_gone() -> None:
    recent = RecentRequests(lately_ms=3000, longest_pause_ms=2000)
    recent.remember(_info("a"), [SequenceLog()], None)

    recent.drop("a")

    assert cast("object", recent.get("a")) is None
    assert len(recent) == 0
