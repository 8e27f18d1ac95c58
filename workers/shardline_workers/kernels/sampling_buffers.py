"""The tensors between sampler and kernels: how each sampled row is to be chosen, and what was chosen.

Row r here is row r of the logits. Rows to be drawn are listed in `drawn_rows`, those with top-k or top-p first, so that
the header's counts tell a kernel which rows need which work.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingBuffers:
    """Parameters and results of at most `max_seqs` rows."""

    temperatures: Tensor  # [max_seqs] float64
    top_ks: Tensor  # [max_seqs] int64, 0 is off
    top_ps: Tensor  # [max_seqs] float64
    min_ps: Tensor  # [max_seqs] float64
    noise_keys: Tensor  # [max_seqs] int64, see noise.noise_key
    drawn_rows: Tensor  # [max_seqs] int64
    logprob_rows: Tensor  # [max_seqs] int64
    chosen_ids: Tensor  # [max_seqs] int64, result
    usable: Tensor  # [max_seqs] bool, result; False: a NaN or +inf among the logits, or nothing but -inf
    chosen_logprobs: Tensor  # [max_seqs] float64, result, in order of logprob_rows
    top_ids: Tensor  # [max_seqs, max_logprobs] int64, result, likeliest first
    top_logprobs: Tensor  # [max_seqs, max_logprobs] float64, result

    @classmethod
    def allocate(cls, *, max_seqs: int, max_logprobs: int, device: torch.device) -> "SamplingBuffers":
        """All buffers, zeroed."""

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return cls(
            temperatures=zeros(max_seqs, dtype=torch.float64),
            top_ks=zeros(max_seqs, dtype=torch.int64),
            top_ps=zeros(max_seqs, dtype=torch.float64),
            min_ps=zeros(max_seqs, dtype=torch.float64),
            noise_keys=zeros(max_seqs, dtype=torch.int64),
            drawn_rows=zeros(max_seqs, dtype=torch.int64),
            logprob_rows=zeros(max_seqs, dtype=torch.int64),
            chosen_ids=zeros(max_seqs, dtype=torch.int64),
            usable=zeros(max_seqs, dtype=torch.bool),
            chosen_logprobs=zeros(max_seqs, dtype=torch.float64),
            top_ids=zeros(max_seqs, max_logprobs, dtype=torch.int64),
            top_logprobs=zeros(max_seqs, max_logprobs, dtype=torch.float64),
        )
