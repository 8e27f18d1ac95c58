"""What lies between the halves of layers, at its largest."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.operands import LinearInput
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.decoder_weights import DecoderWeights
from shardline_workers.models.model_share import ModelShare


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """Buffers that all layers of a rank share. Those of the head are None where a rank has none."""

    residual: Tensor  # [max_tokens, hidden]
    normed: LinearInput  # [max_tokens, hidden]
    delta: Tensor  # [max_tokens, hidden]: what a half layer adds to the residual
    sampled: LinearInput | None  # [max_sampled, hidden]
    rank_logits: Tensor | None  # [max_sampled, vocabulary of this rank]
    logits: Tensor | None  # [max_sampled, vocab], of the rank that chooses; the rank's own where it has all of them

    @classmethod
    def allocate(
        cls,
        shape: DecoderShape,
        weights: DecoderWeights,
        kernels: Kernels,
        *,
        share: ModelShare,
        max_tokens: int,
        max_sampled: int,
        device: torch.device,
    ) -> "Activations":
        """Buffers for a step of so many tokens and rows of logits."""
        dtype = kernels.formats.activations

        def empty(rows: int, columns: int) -> Tensor:
            return torch.empty((rows, columns), dtype=dtype, device=device)

        readers = [reader for layer in weights.layers for reader in layer.readers()]
        head = weights.lm_head
        rank_logits = None if head is None else empty(max_sampled, len(share.vocabulary))
        gathers = share.position.chooses and share.position.plan.tp > 1
        return cls(
            residual=empty(max_tokens, shape.hidden_size),
            normed=kernels.allocate_linear_input(readers, max_rows=max_tokens),
            delta=empty(max_tokens, shape.hidden_size),
            sampled=None if head is None else kernels.allocate_linear_input([head], max_rows=max_sampled),
            rank_logits=rank_logits,
            logits=empty(max_sampled, shape.vocab_size) if gathers else rank_logits,
        )

    def num_bytes(self) -> int:
        """Memory of all buffers."""
        buffers = {id(buffer): buffer for field in fields(self) if (buffer := getattr(self, field.name)) is not None}
        return sum(b.rows.nbytes if isinstance(b, LinearInput) else b.nbytes for b in buffers.values())
