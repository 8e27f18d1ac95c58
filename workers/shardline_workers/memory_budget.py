"""How many threads and how much KV cache a replica may take of its machine: a pure decision and a thin reader.

A container's limits are its cgroup's, not the machine's: what `os.cpu_count` and the machine's memory say would make
replicas slow each other down, or be killed.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
HOST_SHARE = 0.85  # of a host's limit; the rest is for page cache of the weights' file, and for neighbours
CARD_SHARE = 0.92  # of a card's memory; the rest is for fragmentation and for what a step needs for a moment
RUNTIME_BYTES = 512 * MIB  # of a replica: interpreter, torch, temporary tensors
_UNLIMITED_V1 = 1 << 60  # cgroup v1 writes "no limit" as a number near 2^63


@dataclass(frozen=True, slots=True)
class HostResources:
    """What all replicas of this machine, or this container, may use together."""

    num_cores: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KvDemand:
    """What a replica would like to have in its KV cache."""

    block_bytes: int  # all layers together
    max_tokens: int  # more would be of no use
    block_size: int  # tokens


def thread_count(host: HostResources, *, replicas_on_host: int) -> int:
    """Threads of one replica: its share of the cores, at least one."""
    return max(1, host.num_cores // replicas_on_host)


def kv_blocks(
    demand: KvDemand,
    *,
    memory_bytes: int,
    used_bytes: int,
    sharers: int,
    taken_bytes: int = 0,
    usable_share: float = HOST_SHARE,
) -> int:
    """Blocks of KV cache for one replica: what its share of memory leaves, up to its demand.

    Args:
        demand: what it would like to have.
        memory_bytes: of the device, for all replicas on it together.
        used_bytes: taken by this replica already: weights and buffers.
        sharers: replicas that are still to share what is left of it, this one too.
        taken_bytes: what others on the device have taken already.
        usable_share: of that memory.

    Raises:
        ValueError: there is no room for one block.
    """
    share = max(0, int(memory_bytes * usable_share) - taken_bytes) // sharers
    room_bytes = share - used_bytes - RUNTIME_BYTES
    num_blocks = min(room_bytes // demand.block_bytes, demand.max_tokens // demand.block_size)
    if num_blocks < 1:
        raise ValueError(
            f"no memory for a KV cache: of {memory_bytes // MIB} MiB others have taken {taken_bytes // MIB} MiB, of the"
            f" rest each of {sharers} replicas may take {share // MIB} MiB, and weights, buffers and runtime take"
            f" {(used_bytes + RUNTIME_BYTES) // MIB} MiB of that; give more memory, run fewer replicas here, or take a"
            " smaller model or dtype"
        )
    return num_blocks


def read_host_resources(root: Path = Path("/")) -> HostResources:
    """Cores and memory within the limits of machine, affinity and cgroup (v1 or v2, of this process and above it).

    Args:
        root: where /proc and /sys lie.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    quotas = [quota for folder in _cgroup_folders(root, "cpu") if (quota := _cpu_quota(folder)) is not None]
    limits = [limit for folder in _cgroup_folders(root, "memory") if (limit := _memory_limit(folder)) is not None]
    return HostResources(num_cores=max(1, int(min([cores, *quotas]))), memory_bytes=min([memory, *limits]))


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the process's cgroup and of all above it, for a controller. Inside a container the path that /proc
    tells may be the host's; then only the top is there."""
    mount = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            top = mount
        elif controller in controllers.split(","):
            top = mount / controllers if (mount / controllers).is_dir() else mount / controller
        else:
            continue
        relative = Path(path.lstrip("/"))
        yield from (top / relative, *((top / parent) for parent in relative.parents))


def _cpu_quota(folder: Path) -> float | None:
    """Cores, not necessarily whole, that a cgroup may use; None where it has no limit."""
    match [word for line in _lines(folder / "cpu.max") for word in line.split()]:
        case [quota, period] if quota != "max":
            return int(quota) / int(period)
    match _lines(folder / "cpu.cfs_quota_us"), _lines(folder / "cpu.cfs_period_us"):
        case [quota], [period] if int(quota) > 0:
            return int(quota) / int(period)
    return None


def _memory_limit(folder: Path) -> int | None:
    """Bytes that a cgroup may use; None where it has no limit."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        match _lines(folder / name):
            case [limit] if limit != "max" and int(limit) < _UNLIMITED_V1:
                return int(limit)
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
