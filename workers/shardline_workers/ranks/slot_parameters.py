"""What the sequence in each slot wants of its choices, as arrays by slot. Needs no device and no model."""

from zlib import crc32

import numpy as np

from shardline_workers.kernels.noise import noise_stream
from shardline_workers.scheduling.step_plan import SlotStart

_ARRAYS = (
    "temperatures",
    "top_ks",
    "top_ps",
    "min_ps",
    "repetition_penalties",
    "frequency_penalties",
    "presence_penalties",
    "streams",
    "is_drawn",
    "is_cut",
)


class SlotParameters:
    """Every slot's parameters as arrays, so that a step's rows are filled by picking, not one by one."""

    def __init__(self, max_seqs: int) -> None:
        self.temperatures = np.zeros(max_seqs)
        self.top_ks = np.zeros(max_seqs, np.int64)
        self.top_ps = np.ones(max_seqs)
        self.min_ps = np.zeros(max_seqs)
        self.repetition_penalties = np.ones(max_seqs)
        self.frequency_penalties = np.zeros(max_seqs)
        self.presence_penalties = np.zeros(max_seqs)
        self.streams = np.zeros(max_seqs, np.uint64)  # see noise.noise_stream
        self.is_drawn = np.zeros(max_seqs, np.bool_)
        self.is_cut = np.zeros(max_seqs, np.bool_)
        self.num_logprobs: list[int | None] = [None] * max_seqs
        self.num_prompt_logprobs: list[int | None] = [None] * max_seqs

    def enter(self, start: SlotStart) -> None:
        """A sequence enters its slot."""
        slot, sampling = start.slot, start.sampling
        self.temperatures[slot] = sampling.temperature
        self.top_ks[slot] = sampling.top_k
        self.top_ps[slot] = sampling.top_p
        self.min_ps[slot] = sampling.min_p
        self.repetition_penalties[slot] = sampling.repetition_penalty
        self.frequency_penalties[slot] = sampling.frequency_penalty
        self.presence_penalties[slot] = sampling.presence_penalty
        self.streams[slot] = noise_stream(seed=sampling.seed, sequence=start.sequence)
        self.is_drawn[slot] = sampling.temperature > 0
        self.is_cut[slot] = sampling.temperature > 0 and (sampling.top_k > 0 or sampling.top_p < 1)
        self.num_logprobs[slot] = sampling.num_logprobs
        self.num_prompt_logprobs[slot] = sampling.num_prompt_logprobs

    def checksum(self, num_mirrored: int) -> int:
        """CRC-32 of the leading slots: of those that only plans of the scheduler fill."""
        told = crc32(repr((self.num_logprobs[:num_mirrored], self.num_prompt_logprobs[:num_mirrored])).encode())
        for name in _ARRAYS:
            told = crc32(getattr(self, name)[:num_mirrored], told)
        return told
