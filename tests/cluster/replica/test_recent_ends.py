"""The memory of ends ages only by the answers of one server."""

from shardline_cluster.replica.recent_ends import RecentEnds
from tests.cluster.replica.queue_replies import done, granted


def _remember(ends: RecentEnds, request_id: str, now: float) -> None:
    request = granted(request_id)
    ends.remember(request.info, request.logs, done(0), now=now)


def _ids(ends: RecentEnds) -> list[str]:
    return [end.info.id for end in ends.all()]


def test_an_end_is_forgotten_after_its_term_under_one_server() -> None:
    ends = RecentEnds(lately_s=6.0)
    _remember(ends, "a", 100.0)
    _remember(ends, "b", 104.0)

    ends.answered_by_same_server(106.0)
    both = _ids(ends)
    ends.answered_by_same_server(106.1)

    assert both == ["a", "b"]
    assert _ids(ends) == ["b"]
    assert ends.get("a") is None


def test_an_outage_lets_nothing_age_until_the_same_server_is_seen_to_live_on() -> None:
    ends = RecentEnds(lately_s=6.0)
    _remember(ends, "a", 100.0)

    ends.answered_by_new_server(1000.0)
    ends.answered_by_same_server(1006.0)
    remembered = _ids(ends)
    ends.answered_by_same_server(1006.1)

    assert remembered == ["a"]
    assert _ids(ends) == []


def test_a_later_end_of_the_same_request_replaces_the_earlier_one() -> None:
    ends = RecentEnds(lately_s=6.0)
    _remember(ends, "a", 100.0)
    _remember(ends, "a", 105.0)

    ends.answered_by_same_server(107.0)

    assert _ids(ends) == ["a"]
