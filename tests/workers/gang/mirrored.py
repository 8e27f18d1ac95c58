"""What a rank keeps between steps, without a model."""

import dataclasses
from typing import NamedTuple

import torch

from shardline_workers.ranks.input_tensors import InputTensors
from shardline_workers.ranks.sampler import Sampler
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits

VOCAB_SIZE = 64


class Mirror(NamedTuple):
    inputs: InputTensors
    sampler: Sampler


def a_mirror(limits: SchedulerLimits) -> Mirror:
    device = torch.device("cpu")
    return Mirror(
        InputTensors(
            max_tokens=limits.max_num_batched_tokens,
            max_seqs=limits.max_num_seqs,
            max_sampled=limits.max_sampled_rows,
            max_blocks=limits.max_blocks_per_seq,
            block_size=limits.block_size,
            device=device,
        ),
        Sampler(
            max_seqs=limits.max_num_seqs,
            max_sampled=limits.max_sampled_rows,
            max_logprobs=3,
            max_model_len=limits.max_model_len,
            vocab_size=VOCAB_SIZE,
            num_ranks=1,
            device=device,
        ),
    )


def mirrored_bytes(mirror: Mirror) -> dict[str, bytes]:
    """Every buffer of the step, the sampler's counts in the header included."""
    step = mirror.inputs.step
    return {field.name: getattr(step, field.name).numpy().tobytes() for field in dataclasses.fields(step)}
