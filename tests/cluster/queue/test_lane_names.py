"""Names of a lane share one hash tag, and what would break it is refused."""

import pytest

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.queue.lane_names import LaneNames, deployments_key


def test_all_names_of_a_lane_share_its_hash_tag() -> None:
    names = LaneNames("shardline", "smollm2-1")

    assert names.lane_key == "shardline:v1:{smollm2-1}:lane"
    assert names.wake_channel("l1") == "shardline:v1:{smollm2-1}:wake:l1"
    assert names.tokens_channel("r1") == "shardline:v1:{smollm2-1}:tokens:r1"


def test_deployments_lie_outside_the_lanes() -> None:
    assert deployments_key("shardline") == "shardline:v1:deployments"


@pytest.mark.parametrize("prefix", ["", "a{b", "a b", "ä", "a}"])
def test_a_prefix_that_would_break_the_hash_tag_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix"):
        LaneNames(prefix, "lane")
    with pytest.raises(ConfigurationError, match="prefix"):
        deployments_key(prefix)


def test_a_lane_that_would_break_the_hash_tag_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="lane's name"):
        LaneNames("shardline", "la}ne")
