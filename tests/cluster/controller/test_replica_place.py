"""A place's name tells lane and index."""

import pytest

from shardline_cluster.controller.replica_place import ReplicaPlace, places_of
from shardline_cluster.errors import ConfigurationError
from tests.cluster.controller.fleets import deployment


def test_a_place_is_found_again_by_its_name_even_where_the_lane_has_dashes_and_digits() -> None:
    place = ReplicaPlace("smollm2-135m-5c1f", 12)

    assert place.name == "smollm2-135m-5c1f-12"
    assert ReplicaPlace.of(place.name) == place


@pytest.mark.parametrize("name", ["", "lane", "-1", "lane-", "lane-x"])
def test_a_name_of_no_place_is_refused_in_words(name: str) -> None:
    with pytest.raises(ConfigurationError, match="LANE-INDEX"):
        ReplicaPlace.of(name)


def test_a_deployment_has_one_place_for_each_replica() -> None:
    assert [place.index for place in places_of(deployment(3))] == [0, 1, 2]
