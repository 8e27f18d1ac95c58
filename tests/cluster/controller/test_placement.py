"""What a replica asks of a host."""

from dataclasses import replace

import pytest

from shardline_cluster.controller.placement import MemoryShare, memory_share, replicas_on_host
from shardline_cluster.fleet.gang import Gang
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_workers.memory_budget import RUNTIME_BYTES
from shardline_workers.parallel.parallel_plan import ParallelPlan
from tests.cluster.controller.fleets import deployment


@pytest.mark.parametrize(("numbers", "expected"), [((), 1), ((0,), 1), ((1,), 1), ((2, 3), 5)])
def test_a_host_is_shared_by_all_replicas(numbers: tuple[int, ...], expected: int) -> None:
    assert replicas_on_host(tuple(deployment(number) for number in numbers)) == expected


def _loaded(replica: str, *, weights_bytes: int = 100, kv_cache_bytes: int = 10, host: str = "a") -> ReplicaStatus:
    details = {"weights_bytes": str(weights_bytes), "kv_cache_bytes": str(kv_cache_bytes)}
    return ReplicaStatus(deployment="tiny", replica=replica, state=ReplicaState.READY, host=host, details=details)


def test_replicas_that_start_together_share_the_memory_evenly() -> None:
    wanted = deployment(3)

    assert memory_share(wanted, [wanted], [], whole_gpus=False) == MemoryShare(taken_bytes=0, sharers=3)


def test_each_rank_that_is_there_has_taken_a_runtime() -> None:
    wanted = deployment(2)
    sharded = replace(_loaded("tiny-1a2b-0"), gang=Gang(plan=ParallelPlan(tp=3)))

    share = memory_share(wanted, [wanted], [sharded], whole_gpus=False)

    assert share == MemoryShare(taken_bytes=110 + 3 * RUNTIME_BYTES, sharers=1)


def test_a_model_that_comes_later_gets_what_the_others_have_left() -> None:
    first, second = deployment(1), deployment(2, lane="other-1")

    share = memory_share(second, [first, second], [_loaded("tiny-1a2b-0")], whole_gpus=False)

    assert share == MemoryShare(taken_bytes=110 + RUNTIME_BYTES, sharers=2)


def test_a_replica_that_follows_a_dead_one_gets_what_that_one_had() -> None:
    wanted = deployment(2)

    share = memory_share(wanted, [wanted], [_loaded("tiny-1a2b-1")], whole_gpus=False)

    assert share == MemoryShare(taken_bytes=110 + RUNTIME_BYTES, sharers=1)


def test_of_several_hosts_the_fullest_counts() -> None:
    wanted = deployment(4)
    statuses = [
        _loaded("tiny-1a2b-0", host="a"),
        _loaded("tiny-1a2b-1", host="b"),
        _loaded("tiny-1a2b-2", host="b", weights_bytes=500),
    ]

    share = memory_share(wanted, [wanted], statuses, whole_gpus=False)

    assert share == MemoryShare(taken_bytes=110 + 510 + 2 * RUNTIME_BYTES, sharers=1)


def test_replicas_on_another_device_and_those_without_weights_take_nothing() -> None:
    on_cpu, on_gpu = deployment(1), deployment(1, lane="gpu-1", device="cuda")
    statuses = [_loaded("gpu-1-0"), ReplicaStatus(deployment="tiny", replica="tiny-1a2b-1", state=ReplicaState.READY)]

    share = memory_share(on_cpu, [on_cpu, on_gpu], statuses, whole_gpus=False)

    assert share == MemoryShare(taken_bytes=0, sharers=1)


def test_a_gpu_is_shared_unless_each_replica_gets_its_own() -> None:
    wanted = deployment(2, device="cuda")
    statuses = [_loaded("tiny-1a2b-0")]

    shared = memory_share(wanted, [wanted], statuses, whole_gpus=False)
    own = memory_share(wanted, [wanted], statuses, whole_gpus=True)

    assert shared.taken_bytes > 0
    assert own == MemoryShare(taken_bytes=0, sharers=1)
