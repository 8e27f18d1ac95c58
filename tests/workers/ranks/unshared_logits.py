"""Logits of a rank that has the whole vocabulary."""

from torch import Tensor

from shardline_workers.collectives.one_rank_communicator import OneRankCommunicator
from shardline_workers.models.sharded_logits import ShardedLogits


def unshared(logits: Tensor) -> ShardedLogits:
    """Logits [max_sampled, vocab] of the only rank."""
    return ShardedLogits(
        rank_logits=logits,
        logits=logits,
        ranks=OneRankCommunicator(logits.device),
        vocabularies=(range(logits.shape[1]),),
    )
