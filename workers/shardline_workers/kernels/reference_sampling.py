"""Choosing tokens in plain torch. A row's choice depends on its own logits and parameters only.

All is computed in float64: there, two candidates practically never tie, on any device.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from shardline_workers.kernels.noise import gumbel_noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalties:
    """Of one row, each a scalar tensor in float64."""

    repetition: Tensor
    frequency: Tensor
    presence: Tensor


def adjusted(logits: Tensor, *, biases: Tensor, occurrences: Tensor, penalties: Penalties) -> Tensor:
    """Logits [entries] of some tokens as they enter the choice, float64.

    The bias comes first, then the repetition penalty of tokens that were seen at all (Keskar et al. 2019: positive
    logits are divided, others multiplied), then what output tokens pay for each time and once.
    """
    biased = logits.double() + biases.double()
    repeated = torch.where(biased > 0, biased / penalties.repetition, biased * penalties.repetition)
    seen = torch.where(occurrences >= 0, repeated, biased)
    paid = penalties.frequency * occurrences.double() + penalties.presence
    return torch.where(occurrences > 0, seen - paid, seen)


def greedy_choice(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Likeliest token of each row [rows] int64, ties to the lowest id, and whether the row can be used [rows] bool."""
    usable = logits.amax(dim=-1).isfinite()  # a NaN or +inf anywhere shows here, and so does a row of -inf
    return logits.argmax(dim=-1), usable


def draw(scaled: Tensor, keys: Tensor) -> Tensor:
    """One token for each row of log-weights [rows, vocab] float64 with noise of keys [rows] (Gumbel-max)."""
    return (scaled + gumbel_noise(keys, scaled.shape[-1])).argmax(dim=-1)


def scale(logits: Tensor, temperatures: Tensor) -> Tensor:
    """Log-weights at these temperatures, [rows, vocab] float64; the likeliest token of a row has 0."""
    wide = logits.to(torch.float64)
    # The maximum goes first: division by a tiny temperature then gives -inf at worst, never inf - inf.
    return (wide - wide.amax(dim=-1, keepdim=True)) / temperatures[:, None]


def cut_top(scaled: Tensor, *, top_ks: Tensor, top_ps: Tensor) -> Tensor:
    """Log-weights with all but the top_ks likeliest tokens, and of these all beyond the mass top_ps, set to -inf.

    Of equally likely tokens the lower ids are kept. At least the likeliest token is. top_ks 0 and top_ps 1 cut nothing.
    """
    ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
    ranks = torch.arange(scaled.shape[-1], device=scaled.device)[None, :]
    kept = (ranks < top_ks[:, None]) | (top_ks[:, None] == 0)
    mass = ordered.masked_fill(~kept, -torch.inf).softmax(dim=-1)
    mass_before = mass.cumsum(dim=-1) - mass
    kept &= (mass_before < top_ps[:, None]) | (top_ps[:, None] >= 1.0) | (ranks == 0)
    return scaled.masked_fill(~torch.zeros_like(kept).scatter_(-1, order, kept), -torch.inf)


def cut_min_p(scaled: Tensor, min_ps: Tensor) -> Tensor:
    """Log-weights with tokens less likely than min_ps times the likeliest one set to -inf."""
    floors = scaled.amax(dim=-1) + min_ps.log()
    return scaled.masked_fill(scaled < floors[:, None], -torch.inf)


def row_logprobs(logits: Tensor, chosen_ids: Tensor, num_top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the chosen tokens [rows], and ids and log-probabilities of the likeliest [rows, num_top]."""
    logprobs = logits.to(torch.float64).log_softmax(dim=-1)
    chosen = logprobs.gather(-1, chosen_ids[:, None])[:, 0]
    top_ids = torch.stack([likeliest(row, num_top) for row in logprobs])
    return chosen, top_ids, logprobs.gather(-1, top_ids)


def likeliest(row: Tensor, count: int) -> Tensor:
    """Ids of the `count` likeliest tokens of a row, likeliest first, the lowest ids of equals: topk takes any.

    A NaN counts as likelier than any number.
    """
    if count == 0:
        return torch.empty(0, dtype=torch.int64, device=row.device)
    # Nothing is less than a NaN: a row that cannot be used has all of its tokens here.
    candidates = (~(row < row.topk(count).values[-1])).nonzero()[:, 0]
    return candidates[row[candidates].sort(descending=True, stable=True).indices[:count]]
