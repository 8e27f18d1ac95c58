"""Loads a rank's share of a model and tells how much of the mapped file is in this process's memory then.

    python -m tests.workers.models.resident_share FOLDER KERNELS TP PLACE

Prints resident bytes of the file, and the bytes that were asked for.
"""

import os
import sys
from pathlib import Path

import torch

from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.native_kernels import NativeKernels
from shardline_workers.kernels.native_library import load_native_library
from shardline_workers.kernels.reference_kernels import ReferenceKernels
from shardline_workers.models.checkpoint import open_checkpoint
from shardline_workers.models.decoder_weights import load_decoder_weights
from shardline_workers.models.model_share import share_of
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.parallel.rank_position import RankPosition
from shardline_workers.weights.weight_loader import WeightLoader
from tests.workers.tiny_checkpoint import model_files


def resident_bytes(path: Path) -> int:
    """Of this process's mappings of a file."""
    resident, is_file = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(maxsplit=1)[0]:
            is_file = line.endswith(str(path))
        elif is_file and line.startswith("Rss:"):
            resident += int(line.split()[1]) * 1024
    return resident


def main(path: Path, kernels: Kernels, position: RankPosition) -> None:
    """Loads the rank's share."""
    with open_checkpoint(model_files(path)) as checkpoint:
        shape = checkpoint.shape
        share = share_of(shape, position, range(shape.num_layers))
        cpu = torch.device("cpu")
        loader = WeightLoader(checkpoint.source, checkpoint.names, dtype=kernels.formats.activations, device=cpu)
        load_decoder_weights(shape, share, loader, kernels)
        print(resident_bytes(path / "model.safetensors"), loader.asked_bytes, flush=True)


if __name__ == "__main__":
    FOLDER, KIND, TP, PLACE = sys.argv[1:]
    main(
        Path(FOLDER).resolve(),
        NativeKernels(load_native_library(os.environ, print), num_threads=1)
        if KIND == "native"
        else ReferenceKernels(dtype=torch.float32, device=torch.device("cpu")),
        RankPosition.of(ParallelPlan(tp=int(TP)), int(PLACE)),
    )
