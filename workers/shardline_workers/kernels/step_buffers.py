"""The tensors through which a step tells its sizes and places to kernels.

They are made once, at their largest, and written anew for each step. Kernels get them whole and read from `header` how
much of them counts: no shape and no Python value depends on a step, so a recorded sequence of kernel calls can be
replayed for the next one.
"""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor


class StepCount(IntEnum):
    """Entries of the header."""

    TOKENS = 0  # tokens that enter the model
    SEQUENCES = 1  # that these tokens belong to
    SAMPLED = 2  # rows of logits: tokens whose next one is chosen or given
    DRAWN = 3  # of these, by chance
    CUT = 4  # of the drawn ones, with top-k or top-p
    LOGPROBS = 5  # of the sampled ones, with log-probabilities
    ADJUSTED = 6  # of the sampled ones, with some logits changed before the choice
    GIVEN = 7  # of the sampled ones, whose token is known: tokens of prompts, for their log-probabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBuffers:
    """One ragged batch. Tokens of a sequence are neighbours; sequence s has tokens query_starts[s] … [s+1] - 1."""

    header: Tensor  # [len(StepCount)] int32
    token_ids: Tensor  # [max_tokens] int64
    positions: Tensor  # [max_tokens] int64, within the sequence
    cache_places: Tensor  # [max_tokens] int64, block id · block size + offset: where keys and values go
    query_starts: Tensor  # [max_seqs + 1] int32
    context_lengths: Tensor  # [max_seqs] int32, tokens in the cache once this step's are written
    slots: Tensor  # [max_seqs] int64, row of block_tables
    block_tables: Tensor  # [max_seqs, max_blocks] int64, by slot, in order of positions
    sampled_rows: Tensor  # [max_sampled] int64, tokens whose logits are wanted

    @classmethod
    def allocate(
        cls, *, max_tokens: int, max_seqs: int, max_sampled: int, max_blocks: int, device: torch.device
    ) -> "StepBuffers":
        """All buffers, zeroed: the empty step."""

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return cls(
            header=zeros(len(StepCount), dtype=torch.int32),
            token_ids=zeros(max_tokens),
            positions=zeros(max_tokens),
            cache_places=zeros(max_tokens),
            query_starts=zeros(max_seqs + 1, dtype=torch.int32),
            context_lengths=zeros(max_seqs, dtype=torch.int32),
            slots=zeros(max_seqs),
            block_tables=zeros(max_seqs, max_blocks),
            sampled_rows=zeros(max_sampled),
        )
