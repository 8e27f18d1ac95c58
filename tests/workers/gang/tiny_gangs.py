"""Gangs for a tiny model, and how their processes are seen."""

import time
from itertools import count
from pathlib import Path
from typing import NoReturn

from shardline_workers.engine import EngineRequest, Sampling
from shardline_workers.engine_config import EngineConfig
from shardline_workers.files.model_source import ModelFiles
from shardline_workers.gang.gang_limits import GangLimits
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.sharded_engine import ShardedEngine
from tests.workers.engine_runs import request

# Whoever is killed or stopped is told within these seconds, and everything of the gang is gone.
TOLD_S = 10.0
ENDLESS = Sampling(temperature=0.0, max_tokens=80)
HASTY = GangLimits(join_s=30.0, beat_s=0.25, silence_s=4.0)


def tiny_config(files: ModelFiles, *, plan: ParallelPlan, kernels: str = "auto") -> EngineConfig:
    return EngineConfig(
        files=files,
        plan=plan,
        kernels=kernels,
        dtype="float64" if kernels == "auto" else "auto",
        max_model_len=128,
        max_num_seqs=8,
        max_num_batched_tokens=64,
        kv_cache_tokens=1024,
        block_size=8 if kernels == "auto" else None,
        replicas_on_host=64,
    )


def run_for_ever(engine: ShardedEngine, sampling: Sampling) -> NoReturn:
    """Until a step raises."""
    for number in count():
        one: EngineRequest = request(sampling, request_id=str(number))
        engine.add(one)
        while engine.has_work():
            engine.step()
    raise AssertionError("counting has no end")


def is_running(pid: int) -> bool:
    """Whether there is such a process that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for_end(pids: list[int], *, limit_s: float) -> float:
    """Seconds until none of them runs any more."""
    began = time.monotonic()
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() - began < limit_s, f"of {pids} still run {[pid for pid in pids if is_running(pid)]}"
        time.sleep(0.02)
    return time.monotonic() - began
