"""What Ray would make of the actors' classes."""

import inspect

import pytest

pytest.importorskip("ray")

from shardline_cluster.controller.ray_controller_actor import ControllerActor
from shardline_cluster.controller.ray_rank_actor import RankActor
from shardline_cluster.controller.ray_replica_actor import ReplicaActor


@pytest.mark.parametrize("actor", [ControllerActor, ReplicaActor, RankActor])
def test_no_method_is_a_coroutine_which_would_put_all_methods_on_one_loop(actor: type) -> None:
    coroutines = [name for name, _ in inspect.getmembers(actor, inspect.iscoroutinefunction)]

    assert coroutines == []
