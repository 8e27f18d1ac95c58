from pathlib import Path

import pytest

from shardline_workers.memory_budget import (
    CARD_SHARE,
    MIB,
    HostResources,
    KvDemand,
    kv_blocks,
    read_host_resources,
    thread_count,
)

GIB = 1024 * MIB


def demand(max_tokens: int = 1 << 20) -> KvDemand:
    return KvDemand(block_bytes=1 << 21, max_tokens=max_tokens, block_size=32)


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(("replicas", "threads"), [(1, 8), (3, 2), (8, 1), (20, 1)])
def test_replicas_share_the_cores_and_each_has_one_at_least(replicas: int, threads: int) -> None:
    assert thread_count(HostResources(8, GIB), replicas_on_host=replicas) == threads


def test_the_cache_gets_what_weights_and_runtime_leave() -> None:
    blocks = kv_blocks(demand(), memory_bytes=10 * GIB, used_bytes=2 * GIB, sharers=1)

    assert blocks == (10 * GIB * 85 // 100 - 2 * GIB - 512 * MIB) // (2 * MIB)


def test_of_a_card_more_may_be_taken_than_of_a_host() -> None:
    blocks = kv_blocks(demand(), memory_bytes=10 * GIB, used_bytes=2 * GIB, sharers=1, usable_share=CARD_SHARE)

    assert blocks == (10 * GIB * 92 // 100 - 2 * GIB - 512 * MIB) // (2 * MIB)


def test_replicas_share_the_memory() -> None:
    blocks = kv_blocks(demand(), memory_bytes=10 * GIB, used_bytes=2 * GIB, sharers=2)

    assert blocks == (10 * GIB * 85 // 100 // 2 - 2 * GIB - 512 * MIB) // (2 * MIB)


def test_what_others_have_taken_is_theirs_and_the_rest_is_shared() -> None:
    blocks = kv_blocks(demand(), memory_bytes=10 * GIB, used_bytes=GIB, sharers=2, taken_bytes=3 * GIB)

    assert blocks == ((10 * GIB * 85 // 100 - 3 * GIB) // 2 - GIB - 512 * MIB) // (2 * MIB)


def test_where_others_have_taken_all_there_is_no_room() -> None:
    with pytest.raises(ValueError, match="others have taken 20480 MiB, of the rest each of 1 replicas may take 0 MiB"):
        kv_blocks(demand(), memory_bytes=10 * GIB, used_bytes=GIB, sharers=1, taken_bytes=20 * GIB)


def test_the_cache_is_no_larger_than_of_use() -> None:
    assert kv_blocks(demand(1000), memory_bytes=100 * GIB, used_bytes=0, sharers=1) == 31


def test_room_for_one_block_is_enough() -> None:
    room = 10 * GIB * 85 // 100 - 512 * MIB

    assert kv_blocks(demand(), memory_bytes=10 * GIB, used_bytes=room - 2 * MIB, sharers=1) == 1


def test_too_little_memory_is_refused_with_the_figures() -> None:
    message = (
        "of 2048 MiB others have taken 0 MiB, of the rest each of 2 replicas may take 870 MiB, and weights, buffers "
        "and runtime take 1512 MiB"
    )

    with pytest.raises(ValueError, match=message):
        kv_blocks(demand(), memory_bytes=2 * GIB, used_bytes=1000 * MIB, sharers=2)


def test_a_machine_without_limits_is_used_whole(tmp_path: Path) -> None:
    host = read_host_resources(tmp_path)

    assert host.num_cores >= 1
    assert host.memory_bytes > 100 * MIB


def test_limits_of_cgroup_v2_count_here_and_above(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/kubepods/pod1\n",
            "sys/fs/cgroup/kubepods/pod1/memory.max": "max\n",
            "sys/fs/cgroup/kubepods/memory.max": f"{64 * MIB}\n",
            "sys/fs/cgroup/kubepods/pod1/cpu.max": "100000 100000\n",
            "sys/fs/cgroup/kubepods/cpu.max": "max 100000\n",
        },
    )

    assert read_host_resources(root) == HostResources(num_cores=1, memory_bytes=64 * MIB)


def test_limits_of_cgroup_v1_count(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n1:name=systemd:/docker/a\n",
            "sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes": f"{96 * MIB}\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us": "150000\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )

    assert read_host_resources(root) == HostResources(num_cores=1, memory_bytes=96 * MIB)


def test_inside_a_container_the_limit_lies_at_the_top(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/../../outside/pod1\n",
            "sys/fs/cgroup/memory.max": f"{128 * MIB}\n",
            "sys/fs/cgroup/cpu.max": "50000 100000\n",
        },
    )

    assert read_host_resources(root) == HostResources(num_cores=1, memory_bytes=128 * MIB)


def test_limits_without_any_bound_are_none(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "max\n",
            "sys/fs/cgroup/cpu.max": "max 100000\n",
        },
    )

    assert read_host_resources(root) == read_host_resources(tmp_path / "nothing")
