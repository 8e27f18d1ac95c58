"""Request ids lead to their lane, and those with an idempotency key are derived."""

import pytest

from shardline_cluster.errors import ConfigurationError, InvalidRequestError
from shardline_cluster.queue.request_ids import check_lane, derive_request_id, draw_request_id, lane_of


def test_a_drawn_id_names_its_lane() -> None:
    drawn = draw_request_id("smollm2-135m-0a1b")

    assert lane_of(drawn) == "smollm2-135m-0a1b"


def test_two_drawn_ids_differ() -> None:
    assert draw_request_id("lane") != draw_request_id("lane")


def test_a_derived_id_depends_on_tenant_key_and_body_alone() -> None:
    first = derive_request_id("lane", "acme", "key-1", "d1")

    assert first == derive_request_id("lane", "acme", "key-1", "d1")
    assert lane_of(first) == "lane"
    others = [("acme", "key-1", "d2"), ("acme", "key-2", "d1"), ("other", "key-1", "d1"), ("acmek", "ey-1", "d1")]
    assert first not in [derive_request_id("lane", *other) for other in others]


@pytest.mark.parametrize("wrong", ["", "lane", "lane-123", "lane-" + "g" * 32, "-" + "0" * 32, "la{ne}-" + "0" * 32])
def test_an_id_from_outside_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidRequestError, match="request_id is"):
        lane_of(wrong)


@pytest.mark.parametrize("wrong", ["", "{a}", "a b", "-a", "x" * 101])
def test_a_lane_name_that_cannot_stand_in_a_key_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="lane's name"):
        check_lane(wrong)
