"""Other weights under a name leave the old lane to be served to its end; other settings leave the lane alone."""

from dataclasses import replace

import pytest

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import Deployment, EngineOptions
from shardline_cluster.fleet.redeployment import (
    FORMER_LANE_MS,
    MOST_FORMER_LANES,
    check_cluster_is_the_same,
    check_lane_is_free,
    redeployed,
)

NOW_MS = 1_800_000_000_000


def _weights(digest: str, **changes: object) -> Deployment:
    plain = Deployment(name="tiny", model=f"/m/{digest}", lane=f"tiny-{digest}", weights_digest=digest, max_model_len=8)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_a_new_name_is_deployed_as_planned() -> None:
    assert redeployed(None, _weights("a"), now_ms=NOW_MS) == _weights("a")


def test_the_same_weights_keep_their_lane_and_leave_none() -> None:
    wanted = _weights("a", num_replicas=3, options=EngineOptions(max_num_seqs=4))

    assert redeployed(_weights("a"), wanted, now_ms=NOW_MS) == wanted


def test_other_weights_leave_the_old_lane_as_it_was() -> None:
    before = _weights("a", num_replicas=2, options=EngineOptions(max_num_seqs=4))

    after = redeployed(before, _weights("b", num_replicas=5), now_ms=NOW_MS)

    (former,) = after.former_lanes
    assert after.at(former) == before
    assert former.until_ms == NOW_MS + FORMER_LANE_MS
    assert [stage.lane for stage in after.over_time()] == ["tiny-b", "tiny-a"]


def test_a_lane_without_replicas_still_gets_one_for_what_waits_there() -> None:
    after = redeployed(_weights("a", num_replicas=0), _weights("b"), now_ms=NOW_MS)

    assert after.former_lanes[0].num_replicas == 1


def test_weights_that_come_back_are_no_former_ones_any_more() -> None:
    changed = redeployed(_weights("a"), _weights("b"), now_ms=NOW_MS)

    back = redeployed(changed, _weights("a"), now_ms=NOW_MS + 1)

    assert back.lane == "tiny-a"
    assert [former.lane for former in back.former_lanes] == ["tiny-b"]


def test_former_lanes_are_few_and_go_with_their_time() -> None:
    changed = _weights("0")
    for number in range(1, 20):
        changed = redeployed(changed, _weights(str(number)), now_ms=NOW_MS)
    later = redeployed(changed, _weights("19"), now_ms=NOW_MS + FORMER_LANE_MS)

    assert [former.lane for former in changed.former_lanes] == [
        f"tiny-{19 - n}" for n in range(1, MOST_FORMER_LANES + 1)
    ]
    assert later.former_lanes == ()


def test_a_deployment_stays_in_its_cluster() -> None:
    after = redeployed(_weights("a", cluster="east"), _weights("a", cluster="west"), now_ms=NOW_MS)

    assert after.cluster == "east"


def test_what_another_cluster_keeps_is_refused_with_what_helps() -> None:
    there, here = _weights("a", cluster="east"), _weights("a", cluster="west")

    check_cluster_is_the_same(None, here)
    check_cluster_is_the_same(here, here)
    with pytest.raises(ConfigurationError, match=r"tiny is deployed in the cluster 'east'.*--name east"):
        check_cluster_is_the_same(there, here)


def test_names_that_would_share_a_lane_are_refused() -> None:
    other = replace(_weights("a"), name="tiny!")

    check_lane_is_free(_weights("a"), [_weights("a"), replace(other, lane="tiny-x")])
    with pytest.raises(ConfigurationError, match="'tiny' and 'tiny!' are too alike"):
        check_lane_is_free(_weights("a"), [other])


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="1 to 200 characters"):
        replace(_weights("a"), name=name)


@pytest.mark.parametrize("cluster", ["", "-a", "a b", "x" * 65])
def test_a_cluster_has_a_plain_name(cluster: str) -> None:
    with pytest.raises(ConfigurationError, match="the name of the cluster"):
        replace(_weights("a"), cluster=cluster)
