"""How a Ray cluster for one machine is started: a head that computes nothing, and a node beside it.

    ray start --head   127.0.0.2   GCS (state kept in RocksDB)      may die and come back: same command, same addresses
    ray start          127.0.0.3   raylet with all CPUs and GPUs    controller and replicas live here

Two of them, because a head takes its own raylet along when its GCS dies, and every actor on it. So replicas live on the
node, which outlives the head, as they would in a cluster of many machines. Makes commands, starts nothing.

Measured on Ray 2.60: without kept state a restarted head kills every raylet and actor; without a long reconnect time
everything exits 60 s after the head did; `ray start` refuses where `ray_current_cluster` lies in its folder.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.processes.log_cap import MOST_LOG_BYTES

HEAD_IP = "127.0.0.2"  # 127.0.0.1 would be replaced by the machine's own address, open to the network
NODE_IP = "127.0.0.3"
OBJECT_STORE_BYTES = 80_000_000  # close to the least that Ray takes: nothing of ours lies in it
# How long Ray's processes live without a head, in seconds; by default they all exit after 60.
RECONNECT_VARIABLES = MappingProxyType({"RAY_gcs_rpc_server_reconnect_timeout_s": "3600"})
# A socket's path has at most 107 bytes; `/h/session_2026-11-24_08-17-01_202215_1234567/sockets/plasma_store` is below.
LONGEST_FOLDER = 107 - 66
STARTED = "Ray runtime started."  # what `ray start` prints once its processes run


@dataclass(frozen=True, slots=True, kw_only=True)
class RayPlan:
    """The addresses and folders of one machine's Ray cluster. They must not change over a restart of the head."""

    ray_command: tuple[str, ...]  # runs Ray's command line
    folder: Path  # short and private; everything that Ray writes lies in it
    gcs_port: int
    client_port: int  # of a server that `ray start --head` always starts, and that nobody here uses

    def __post_init__(self) -> None:
        length = len(str(self.folder))
        if length > LONGEST_FOLDER:
            raise ConfigurationError(
                f"Ray's folder {self.folder} has {length} characters, but at most {LONGEST_FOLDER} leave room for its "
                "sockets: set TMPDIR to a shorter folder"
            )

    @property
    def address(self) -> str:
        """Where drivers find the head."""
        return f"{HEAD_IP}:{self.gcs_port}"

    @property
    def head_folder(self) -> Path:
        """Ray's temp folder for the head."""
        return self.folder / "h"

    @property
    def node_folder(self) -> Path:
        """Ray's temp folder for the node."""
        return self.folder / "n"

    @property
    def token_file(self) -> Path:
        """The secret that Ray's processes show each other: their ports are open to the whole machine, and beyond."""
        return self.folder / "token"

    def head_command(self) -> tuple[str, ...]:
        """The head; restarted with exactly this."""
        return (
            *self.ray_command,
            *("start", "--head", f"--node-ip-address={HEAD_IP}", f"--port={self.gcs_port}"),
            *(f"--ray-client-server-port={self.client_port}", "--num-cpus=0", "--num-gpus=0"),
            *("--include-dashboard=false", "--dashboard-port=0", "--no-monitor"),
            *node_flags(self.head_folder),
        )

    def node_command(self) -> tuple[str, ...]:
        """The node, once the head is up."""
        return (
            *self.ray_command,
            *("start", f"--address={self.address}", f"--node-ip-address={NODE_IP}"),
            *node_flags(self.node_folder),
        )

    def environment(self) -> Mapping[str, str]:
        """For every process of this cluster, drivers included."""
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            **RECONNECT_VARIABLES,
            # A node that is gone is noticed within 2.5 s instead of 14 s.
            "RAY_health_check_initial_delay_ms": "0",
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_timeout_ms": "1000",
            "RAY_health_check_failure_threshold": "3",
            "RAY_worker_niceness": "0",  # Ray's default of 15 would starve a replica beside any other program
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DEDUP_LOGS": "0",
            "RAY_ROTATION_MAX_BYTES": str(MOST_LOG_BYTES),
            "RAY_ROTATION_BACKUP_COUNT": "1",
        }

    def head_environment(self) -> Mapping[str, str]:
        """For the head alone: its state on disk, so that a restart finds every node, actor and name again."""
        return {
            **self.environment(),
            "RAY_gcs_storage": "rocksdb",
            "RAY_gcs_storage_path": str(self.folder / "gcs"),
        }

    def write_token(self) -> None:
        """Draws the secret. To be called once, before anything is started."""
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(secrets.token_hex(32))

    def head_takes_nodes(self) -> bool:
        """Whether the head's own raylet is there, which a node asks for, and in vain waits 2 s before it asks again.

        The head says that it has started a second later: by then a node can be half-way up.
        """
        return any(self.head_folder.glob("session_*/sockets/raylet*"))

    def forget_last_start(self) -> None:
        """To be called before each start of the head."""
        (self.head_folder / "ray_current_cluster").unlink(missing_ok=True)


def node_flags(temp_folder: Path) -> tuple[str, ...]:
    """Flags of every `ray start`, head or node, with a temp folder of its own."""
    return (
        *("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"),
        *("--include-log-monitor=false", f"--object-store-memory={OBJECT_STORE_BYTES}"),
        *("--disable-usage-stats", f"--temp-dir={temp_folder}", "--block"),
    )
