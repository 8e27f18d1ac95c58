"""The tokens of a group dealt out to its tensor-parallel ranks, so that only one rank sends each of them on.

4 ranks of a group of 6 tokens: 0 1 | 2 3 | 4 | 5
"""

from dataclasses import dataclass

from torch import Tensor

from shardline_workers.communicator import Communicator
from shardline_workers.parallel.head_split import even_spans


@dataclass(frozen=True, slots=True)
class TokenSlices:
    """One rank's end of it. All ranks have the same tokens."""

    ranks: Communicator

    def own(self, num_tokens: int) -> slice:
        """The tokens of this rank."""
        span = self._spans(num_tokens)[self.ranks.place.rank]
        return slice(span.start, span.stop)

    def join(self, rows: Tensor) -> None:
        """Brings every rank's slice of `rows` [num_tokens, width] to all of them, in place."""
        spans = self._spans(len(rows))
        if len(spans) == 1 or len(rows) == 0:
            return
        own = rows[self.own(len(rows))]
        padded = rows.new_zeros((len(spans[0]), rows.shape[1]))
        padded[: len(own)] = own
        joined = rows.new_empty((len(spans), *padded.shape))
        self.ranks.all_gather(padded, joined)
        for span, part in zip(spans, joined, strict=True):
            rows[span.start : span.stop] = part[: len(span)]

    def _spans(self, num_tokens: int) -> tuple[range, ...]:
        return even_spans(num_tokens, self.ranks.place.num_ranks)
