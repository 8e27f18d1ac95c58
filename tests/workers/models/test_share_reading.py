"""A rank reads its own share of a model's file: as much as it asks for, and the operating system has seen no more."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.parallel.parallel_plan import ParallelPlan
from tests.workers.models import resident_share
from tests.workers.test_tensor_parallel import config
from tests.workers.thread_ranks import ThreadRanks
from tests.workers.tiny_checkpoint import HIDDEN, tiny_config, tiny_tensors, write_tiny_checkpoint

VOCAB = 256 * 1024  # rows of the two largest matrices: 32 MiB each
NUM_RANKS = 4
AROUND = 2 << 20  # bytes that the system may map for a page that was touched, at either end of a part


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a large vocabulary."""
    wide = np.random.default_rng(1).normal(scale=0.4, size=(2, VOCAB, HIDDEN)).astype(np.float32)
    tensors = {**tiny_tensors(), "model.embed_tokens.weight": wide[0], "lm_head.weight": wide[1]}
    path = tmp_path_factory.mktemp("wide")
    write_tiny_checkpoint(path, tensors=tensors, config={**tiny_config(), "vocab_size": VOCAB})
    return path


def told(folder: Path, kind: str, tp: int, place: int) -> tuple[int, int]:
    """Resident and asked bytes of a rank in a process of its own."""
    command = [sys.executable, "-m", resident_share.__name__, str(folder), kind, str(tp), str(place)]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    resident, asked = map(int, done.stdout.split())
    return resident, asked


@pytest.mark.process
@pytest.mark.usefixtures("native_library")
@pytest.mark.parametrize("kind", ["reference", "native"])
def test_no_more_of_the_mapped_file_is_resident_than_the_ranks_part(folder: Path, kind: str) -> None:
    file_bytes = (folder / "model.safetensors").stat().st_size

    whole, asked_whole = told(folder, kind, 1, 0)
    part, asked = told(folder, kind, NUM_RANKS, 2)

    assert whole > 0.9 * file_bytes, "a whole model is seen to be read"
    assert asked_whole > 0.9 * file_bytes
    assert asked < file_bytes * 1.05 / NUM_RANKS
    assert part < asked + 4 * AROUND < 0.4 * file_bytes


def test_what_all_ranks_ask_for_together_is_the_file_but_for_norms(folder: Path, native_library: NativeLibrary) -> None:
    files = write_tiny_checkpoint(folder / "small")
    plan = ParallelPlan(tp=2, pp=2)

    with ThreadRanks(dataclasses.replace(config(files), plan=plan), native_library) as ranks:
        asked = [rank.asked_bytes for rank in ranks.ranks]

    matrices = sum(tensor.nbytes for tensor in tiny_tensors().values() if tensor.ndim == 2)
    norms = sum(tensor.nbytes for tensor in tiny_tensors().values() if tensor.ndim == 1)
    assert sum(asked) == matrices + 2 * norms
    assert max(asked) < 0.3 * (matrices + norms)
