"""Whether this machine, or this container, has what a server takes of it."""

import os
import resource
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from shardline_cluster.cli.checks.finding import Finding, broken, doubtful, good
from shardline_cluster.cli.run_file import live_run_files
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.serve.ports import reserve_shared_port
from shardline_workers.files.byte_size import shown_bytes
from shardline_workers.kernels.native_build import ready_library
from shardline_workers.kernels.native_compiler import CompilerError, find_compiler
from shardline_workers.kernels.native_library import COST, CURE, NativeLibrary, NativeUnavailableError
from shardline_workers.memory_budget import read_host_resources

_SMALL_SHM_BYTES = 64 << 20  # what a container gets unless it is told otherwise
_LITTLE_MEMORY_BYTES = 2 << 30  # interpreters, torch and a small model
_LITTLE_DISK_BYTES = 5 << 30
_FEW_FILES = 1024  # Ray and gRPC open many
_TOO_FEW_FILES = 256
_ONLINE_WITHIN_S = 10.0
_DEFAULT_HUB = "https://huggingface.co"


def check_resources(root: Path = Path("/")) -> Finding:
    """Cores and memory, within the limits of cgroup and affinity."""
    host = read_host_resources(root)
    cores = "1 core" if host.num_cores == 1 else f"{host.num_cores} cores"
    found = f"{cores} and {shown_bytes(host.memory_bytes)} of memory, within the limits of this container or machine"
    if host.memory_bytes < _LITTLE_MEMORY_BYTES:
        return doubtful("cores and memory", found, "A model wants more memory: raise the container's limit.")
    return good("cores and memory", found)


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Where Ray keeps what processes share."""
    if sys.platform != "linux":
        return good("shared memory", "this system needs no folder for it")
    if not folder.is_dir():
        return doubtful(
            "shared memory", f"there is no {folder}", "Ray falls back to slower files: mount a tmpfs there."
        )
    usage = shutil.disk_usage(folder)
    found = f"{folder} has {shown_bytes(usage.total)}, of which {shown_bytes(usage.free)} are free"
    if usage.total <= _SMALL_SHM_BYTES:
        return doubtful("shared memory", found, "Ray wants more: start the container with --shm-size=1g.")
    return good("shared memory", found)


def check_port(host: str, port: int, environment: Mapping[str, str]) -> Finding:
    """Whether a server could listen there."""
    check = f"port {port} of {host}"
    try:
        with closing(reserve_shared_port(host, port)):
            return good(check, "free")
    except ConfigurationError as error:
        holders = [file.name for file in live_run_files(environment) if f"{host}:{port}" in file.endpoints]
        if holders:
            return good(check, f"in use by the server named {holders[0]!r}, which runs here")
        return broken(check, str(error), "`shardline serve --grpc-port 0` takes any free port.")


def check_kernels(environment: Mapping[str, str]) -> Finding:
    """The compiler, and which instruction sets the kernels would take where they are built already."""
    try:
        compiler = " ".join(find_compiler(environment).command)
    except CompilerError as error:
        compiler, why_none = "", str(error)
    library = ready_library(environment)
    if library is None:
        if not compiler:
            return doubtful("native kernels", f"{why_none}; without them {COST}", f"To have them, {CURE}.")
        return good("native kernels", f"{compiler} will build them at the first start")
    try:
        native = NativeLibrary(library)
    except NativeUnavailableError as error:
        return doubtful("native kernels", str(error), "The next start of a model builds them anew.")
    chosen = environment.get("SHARDLINE_INSTRUCTION_SET") or native.best_isa()
    found = f"built; this processor can {', '.join(native.available_isas())}; {chosen} is taken"
    if chosen not in native.available_isas():
        return broken("native kernels", found, "Unset SHARDLINE_INSTRUCTION_SET, or name one that is there.")
    return good("native kernels", found)


def check_gpus() -> Finding:
    """What torch sees."""
    try:
        import torch
    except ImportError:
        return doubtful("GPUs", "torch is not installed, so nobody knows", "See the line of torch.")
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if not names:
        return good("GPUs", "torch sees none; the CPU is used")
    return good("GPUs", f"{', '.join(names)}: --device cuda")


def check_open_files(limit: int | None = None) -> Finding:
    """How many files, connections included, a process may have open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
    found = "no limit" if soft == resource.RLIM_INFINITY else f"at most {soft} in a process"
    if soft != resource.RLIM_INFINITY and soft < _TOO_FEW_FILES:
        return broken("open files", found, f"Raise it: `ulimit -n {16 * _FEW_FILES}`.")
    if soft != resource.RLIM_INFINITY and soft < _FEW_FILES:
        return doubtful("open files", found, f"Many clients at once need more: `ulimit -n {16 * _FEW_FILES}`.")
    return good("open files", found)


def check_cache(folder: Path) -> Finding:
    """Whether models can be kept there."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        return broken(
            "cache", f"{folder} cannot be written", "Set XDG_CACHE_HOME to a folder that can, or change its rights."
        )
    free = shutil.disk_usage(there).free
    found = f"{folder}, where {shown_bytes(free)} are free"
    if free < _LITTLE_DISK_BYTES:
        return doubtful("cache", found, "Models take gigabytes: `shardline rm MODEL` deletes one.")
    return good("cache", found)


def check_hub(environment: Mapping[str, str]) -> Finding:
    """Whether the Hugging Face hub answers. Any answer will do."""
    endpoint = environment.get("HF_ENDPOINT") or _DEFAULT_HUB
    if not endpoint.startswith(("http://", "https://")):
        return broken("Hugging Face hub", f"HF_ENDPOINT is {endpoint!r}", "Give an address with https:// or http://.")
    try:
        urllib.request.urlopen(endpoint, timeout=_ONLINE_WITHIN_S).close()
    except urllib.error.HTTPError:
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return doubtful(
            "Hugging Face hub",
            f"{endpoint} does not answer: {reason}",
            "Check the network and the proxy; models in the cache and on the disk work without it.",
        )
    return good("Hugging Face hub", f"{endpoint} answers")


def machine_findings(
    environment: Mapping[str, str], *, host: str, port: int, cache_folder: Path, online: bool
) -> Iterator[Finding]:
    """All checks of this module."""
    yield check_resources()
    yield check_shared_memory()
    yield check_port(host, port, environment)
    yield check_kernels(environment)
    yield check_gpus()
    yield check_open_files()
    yield check_cache(cache_folder)
    if online:
        yield check_hub(environment)
