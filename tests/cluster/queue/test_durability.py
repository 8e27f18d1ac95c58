"""Durability is named, and what does not exist yet is refused by name."""

import pytest

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.queue.durability import Durability, parse_durability


def test_settings_are_found_by_name() -> None:
    assert [parse_durability(name) for name in ("none", "relaxed")] == [Durability.NONE, Durability.RELAXED]


@pytest.mark.parametrize(
    ("name", "reason"), [("strict", "not supported yet"), ("fast", "one of none, relaxed, strict")]
)
def test_others_are_refused(name: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        parse_durability(name)
