"""The tensors between sampler and kernels: how each sampled row is to be chosen, and what was chosen.

Row r here is row r of the logits. Rows to be drawn are listed in `drawn_rows`, those with top-k or top-p first, so that
the header's counts tell a kernel which rows need which work.

A slot's `adjustments` are the few logits that are changed before the choice, one entry for each token that its
sequence has seen or that its request names. They stay where they are while the sequence runs:

    ids          [ 17 | 4 | 9 | · | · ]      lengths = 3
    biases       [  0 | 5 | -inf …           -inf forbids the token
    occurrences  [  2 | 0 | -1 …             in the output; -1: neither there nor in the prompt
"""

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_CANDIDATES = 256  # of a row: where a choice needs more, ranks tell all of their logits
NEVER_SEEN = -1  # occurrences of a token that stands neither in prompt nor output


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustments:
    """Changed logits of every slot. What lies beyond a slot's length means nothing."""

    lengths: Tensor  # [max_seqs] int64
    ids: Tensor  # [max_seqs, max_adjustments] int32, each id once in a row
    biases: Tensor  # [max_seqs, max_adjustments] float32, -inf forbids
    occurrences: Tensor  # [max_seqs, max_adjustments] int32, in the output; 0 in the prompt only, or NEVER_SEEN
    raw_logits: Tensor  # [max_seqs, max_adjustments] float64, result: what stood there before

    @classmethod
    def allocate(cls, *, max_seqs: int, max_adjustments: int, device: torch.device) -> "Adjustments":
        """All slots, empty. Memory that no request needs is not touched, where the device works that way."""

        def entries(dtype: torch.dtype) -> Tensor:
            return torch.empty((max_seqs, max_adjustments), dtype=dtype, device=device)

        return cls(
            lengths=torch.zeros(max_seqs, dtype=torch.int64, device=device),
            ids=entries(torch.int32),
            biases=entries(torch.float32),
            occurrences=entries(torch.int32),
            raw_logits=entries(torch.float64),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingBuffers:
    """Parameters and results of at most `max_sampled` rows, and of every slot."""

    temperatures: Tensor  # [max_sampled] float64
    top_ks: Tensor  # [max_sampled] int64, 0 is off
    top_ps: Tensor  # [max_sampled] float64
    min_ps: Tensor  # [max_sampled] float64
    noise_keys: Tensor  # [max_sampled] int64, see noise.noise_key
    drawn_rows: Tensor  # [max_sampled] int64
    logprob_rows: Tensor  # [max_sampled] int64
    adjusted_rows: Tensor  # [max_sampled] int64
    adjusted_slots: Tensor  # [max_sampled] int64, in order of adjusted_rows: whose adjustments
    repetition_penalties: Tensor  # [max_sampled] float64
    frequency_penalties: Tensor  # [max_sampled] float64
    presence_penalties: Tensor  # [max_sampled] float64
    adjustments: Adjustments
    # Of ranks that share a vocabulary, how many of its greatest logits each tells; 0: all, as where one rank has the
    # whole vocabulary. At most MAX_CANDIDATES. See `gather_logits`.
    num_candidates: Tensor  # [max_sampled] int64
    given_rows: Tensor  # [max_sampled] int64
    given_ids: Tensor  # [max_sampled] int64, in order of given_rows
    chosen_ids: Tensor  # [max_sampled] int64, result
    usable: Tensor  # [max_sampled] bool, result; False: a NaN or +inf among the logits, or nothing but -inf
    chosen_logprobs: Tensor  # [max_sampled] float64, result, in order of logprob_rows
    top_ids: Tensor  # [max_sampled, max_logprobs] int64, result, likeliest first
    top_logprobs: Tensor  # [max_sampled, max_logprobs] float64, result

    @classmethod
    def allocate(
        cls, *, max_seqs: int, max_sampled: int, max_logprobs: int, max_adjustments: int, device: torch.device
    ) -> "SamplingBuffers":
        """All buffers, zeroed."""

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return cls(
            temperatures=zeros(max_sampled, dtype=torch.float64),
            top_ks=zeros(max_sampled, dtype=torch.int64),
            top_ps=zeros(max_sampled, dtype=torch.float64),
            min_ps=zeros(max_sampled, dtype=torch.float64),
            noise_keys=zeros(max_sampled, dtype=torch.int64),
            drawn_rows=zeros(max_sampled, dtype=torch.int64),
            logprob_rows=zeros(max_sampled, dtype=torch.int64),
            adjusted_rows=zeros(max_sampled, dtype=torch.int64),
            adjusted_slots=zeros(max_sampled, dtype=torch.int64),
            repetition_penalties=zeros(max_sampled, dtype=torch.float64),
            frequency_penalties=zeros(max_sampled, dtype=torch.float64),
            presence_penalties=zeros(max_sampled, dtype=torch.float64),
            num_candidates=zeros(max_sampled, dtype=torch.int64),
            given_rows=zeros(max_sampled, dtype=torch.int64),
            given_ids=zeros(max_sampled, dtype=torch.int64),
            adjustments=Adjustments.allocate(max_seqs=max_seqs, max_adjustments=max_adjustments, device=device),
            chosen_ids=zeros(max_sampled, dtype=torch.int64),
            usable=zeros(max_sampled, dtype=torch.bool),
            chosen_logprobs=zeros(max_sampled, dtype=torch.float64),
            top_ids=zeros(max_sampled, max_logprobs, dtype=torch.int64),
            top_logprobs=zeros(max_sampled, max_logprobs, dtype=torch.float64),
        )
