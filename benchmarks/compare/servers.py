"""The servers that are compared: how each is started at its best, made to wait its turn, and stopped.

Each gets all cores, room for 16 sequences and a KV cache of the same number of tokens (vLLM counts whole GiB).
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.compare.peer_folder import LLAMA_BUILDS, PeerFolder
from benchmarks.compare.points import KV_CACHE_TOKENS, LLAMA, MAX_MODEL_LEN, MAX_SEQS, OURS, VLLM
from benchmarks.compare.process_trees import signal_tree, tree
from shardline_cluster.cli.run_file import read_run_file

SERVED_NAME = "compared"
READY_WITHIN_S = 600.0  # vLLM compiles at its first start
STOPPED_WITHIN_S = 30.0
_POLL_S = 0.1


class ServerFailedError(RuntimeError):
    """A server ended, or did not get ready; the message holds the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlan:
    """How a contender's server is started."""

    contender: str
    format: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None  # None: ours tells its address by itself
    build: str = ""  # of a contender that has several
    pauses: bool = True  # stopped by a signal while others play; ours holds leases, which would run out


class RunningServer:
    """A server that answers."""

    def __init__(self, plan: ServerPlan, process: subprocess.Popen[bytes], *, log: Path, endpoint: str) -> None:
        self.plan = plan
        self.endpoint = endpoint  # host:port
        self.ready_after_s = 0.0
        self._process = process
        self._log = log

    @property
    def pids(self) -> list[int]:
        """Every process of it."""
        return tree(self._process.pid)

    @property
    def log(self) -> str:
        """What it printed."""
        return self._log.read_text(errors="replace")

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Lets it run for the time of a block; before and after, it takes no CPU time where it can be stopped."""
        self.resume()
        try:
            yield
        finally:
            self.pause()

    def pause(self) -> None:
        """Stops its processes where they are."""
        if self.plan.pauses:
            signal_tree(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets them go on."""
        if self.plan.pauses:
            signal_tree(self._process.pid, signal.SIGCONT)


@contextlib.contextmanager
def running(plan: ServerPlan) -> Iterator[RunningServer]:
    """The server, ready and paused; ended with all its processes at the block's end.

    Raises:
        ServerFailedError: it does not get ready.
    """
    with tempfile.TemporaryDirectory(prefix="slc-") as folder, contextlib.ExitStack() as stack:
        runtime = Path(folder) / "run"
        runtime.mkdir(mode=0o700)
        log = Path(folder) / "log"
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), **plan.environment}
        output = stack.enter_context(log.open("wb"))
        began = time.monotonic()
        process = subprocess.Popen(
            plan.command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        stack.callback(_end, process)
        endpoint = _wait_until_ready(plan, process, log=log, environment=environment)
        server = RunningServer(plan, process, log=log, endpoint=endpoint)
        server.ready_after_s = time.monotonic() - began
        server.pause()
        yield server


def our_server(folder: PeerFolder, format_name: str) -> ServerPlan:
    """`shardline serve`: router, Redis log, controller and replica."""
    flags = {
        "--launcher": "local",
        "--grpc-port": "0",
        "--served-model-name": SERVED_NAME,
        "--name": SERVED_NAME,
        "--max-model-len": MAX_MODEL_LEN,
        "--max-num-seqs": MAX_SEQS,
        "--kv-cache-tokens": KV_CACHE_TOKENS,
    }
    command = [sys.executable, "-m", "shardline_cluster.cli.main", "serve", str(folder.model(format_name))]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    return ServerPlan(
        contender=OURS,
        format=format_name,
        command=[*command, *_flat(flags)],
        environment=environment,
        pauses=False,
    )


def llama_server(
    folder: PeerFolder,
    format_name: str,
    *,
    threads: int,
    build: str = LLAMA_BUILDS[0],
    load_mode: str = "auto",
) -> ServerPlan:
    """llama.cpp's server: a slot for each sequence, continuous batching, flash attention where it helps (auto)."""
    port = free_port()
    flags = {
        "-m": folder.model(format_name),
        "--host": "127.0.0.1",
        "--port": port,
        "-a": SERVED_NAME,
        "-t": threads,
        "-tb": threads,
        "--load-mode": load_mode,
        "-np": MAX_SEQS,
        "-c": KV_CACHE_TOKENS,
        "--cache-ram": 0,  # prompts never repeat here; saving them would only cost time
    }
    command = [str(folder.llama("llama-server", build)), *_flat(flags), "--no-ui", "--no-cache-prompt"]
    return ServerPlan(contender=LLAMA, format=format_name, command=command, port=port, build=build)


def vllm_server(folder: PeerFolder, *, threads: int) -> ServerPlan:
    """vLLM's OpenAI server in bf16, its threads bound to all cores, with the libraries that its manual asks for."""
    port = free_port()
    flags = {
        "--model": folder.hugging_face_model,
        "--dtype": "bfloat16",
        "--host": "127.0.0.1",
        "--port": port,
        "--served-model-name": SERVED_NAME,
        "--max-model-len": MAX_MODEL_LEN,
        "--max-num-seqs": MAX_SEQS,
    }
    environment = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB, the least: 23,000 tokens of this model
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}",
        "LD_PRELOAD": ":".join(str(library) for library in vllm_libraries(folder)),
    }
    command = [str(folder.vllm_python), "-m", "vllm.entrypoints.openai.api_server", *_flat(flags)]
    return ServerPlan(contender=VLLM, format="BF16", command=command, environment=environment, port=port)


def vllm_libraries(folder: PeerFolder) -> list[Path]:
    """Intel's OpenMP out of vLLM's environment, and tcmalloc where the system has it."""
    intel = sorted((folder.path / "vllm" / "lib").glob("libiomp5.so"))
    return [*intel, *sorted(Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4"))]


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _flat(flags: Mapping[str, object]) -> list[str]:
    return [str(word) for flag in flags.items() for word in flag]


def _wait_until_ready(
    plan: ServerPlan, process: subprocess.Popen[bytes], *, log: Path, environment: Mapping[str, str]
) -> str:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        if plan.port is None:
            if any(line.startswith("ready") for line in log.read_text(errors="replace").splitlines()):
                return read_run_file(SERVED_NAME, environment).endpoints[0]
        elif _answers(plan.port):
            return f"127.0.0.1:{plan.port}"
        time.sleep(_POLL_S)
    end = log.read_text(errors="replace")[-3000:]
    raise ServerFailedError(
        f"{plan.contender} {plan.format} did not get ready (exit {process.poll()}); it said:\n{end}"
    )


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks it to end, and kills what is left of it after a while."""
    signal_tree(process.pid, signal.SIGCONT)
    members = tree(process.pid)
    process.terminate()
    try:
        process.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in members[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
