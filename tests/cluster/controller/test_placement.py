"""What a replica asks of a host."""

import pytest

from shardline_cluster.controller.placement import bundle_for, replicas_on_host
from shardline_cluster.fleet.deployment import EngineOptions
from tests.cluster.controller.fleets import deployment


@pytest.mark.parametrize(("device", "num_gpus"), [("cpu", 0.0), ("cuda", 1.0), ("cuda:1", 1.0)])
def test_a_replica_asks_for_a_gpu_only_where_it_runs_on_one(device: str, num_gpus: float) -> None:
    bundle = bundle_for(EngineOptions(device=device))

    assert bundle.num_gpus == num_gpus


def test_a_hundred_replicas_fit_a_single_core_but_none_fits_a_host_without_cores() -> None:
    bundle = bundle_for(EngineOptions())

    assert 0 < 100 * bundle.num_cpus <= 1


@pytest.mark.parametrize(("numbers", "expected"), [((), 1), ((0,), 1), ((1,), 1), ((2, 3), 5)])
def test_a_host_is_shared_by_all_replicas(numbers: tuple[int, ...], expected: int) -> None:
    assert replicas_on_host(tuple(deployment(number) for number in numbers)) == expected
