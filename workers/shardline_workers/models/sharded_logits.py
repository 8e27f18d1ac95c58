"""Logits as the ranks of the last stage have them: each those of its own part of the vocabulary."""

from dataclasses import dataclass

from torch import Tensor

from shardline_workers.communicator import Communicator


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedLogits:
    """One rank's logits, and where those of all are brought together."""

    rank_logits: Tensor  # [max_sampled, ids of this rank]
    logits: Tensor | None  # [max_sampled, vocab], of the rank that chooses; `rank_logits` where these are all
    ranks: Communicator  # that have the others
    vocabularies: tuple[range, ...]  # token ids of each rank

    @property
    def first_id(self) -> int:
        """Of this rank."""
        return self.vocabularies[self.ranks.place.rank].start

    @property
    def rank_sizes(self) -> tuple[int, ...]:
        """Token ids of each rank, counted."""
        return tuple(map(len, self.vocabularies))

    @property
    def vocab_size(self) -> int:
        """Of all ranks together."""
        return self.vocabularies[-1].stop
