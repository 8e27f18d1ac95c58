"""A deployment that vanishes from the store is missed for a while before it is gone."""

from dataclasses import replace

from shardline_cluster.fleet.lasting_deployments import LastingDeployments
from tests.cluster.controller.fleets import deployment

TINY = deployment(2)


def test_one_that_vanishes_stays_for_a_while_and_then_goes() -> None:
    lasting = LastingDeployments(kept_s=10)
    lasting.seen({"tiny": TINY}, 100)

    assert lasting.seen({}, 101) == lasting.seen({}, 110.9) == {"tiny": TINY}
    assert lasting.seen({}, 111) == {}
    assert lasting.seen({}, 112) == {}


def test_one_that_is_put_back_in_time_was_never_gone() -> None:
    lasting = LastingDeployments(kept_s=10)
    lasting.seen({"tiny": TINY}, 100)
    lasting.seen({}, 109)
    lasting.seen({"tiny": TINY}, 109.5)

    assert lasting.seen({}, 115) == {"tiny": TINY}


def test_a_change_counts_at_once() -> None:
    lasting = LastingDeployments(kept_s=10)
    lasting.seen({"tiny": TINY}, 100)
    scaled = replace(TINY, num_replicas=0)

    assert lasting.seen({"tiny": scaled}, 100) == {"tiny": scaled}


def test_an_outage_in_which_nothing_could_be_read_counts_nothing() -> None:
    lasting = LastingDeployments(kept_s=10)
    lasting.seen({"tiny": TINY}, 100)

    assert lasting.seen({}, 500) == {"tiny": TINY}
