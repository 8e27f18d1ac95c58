"""How often a rank's tokens took each expert, told every so many steps."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from shardline_workers.engine import ExpertLoads
from shardline_workers.models.model_share import ModelShare

STEPS_PER_REPORT = 64  # a report is a number for each expert: no step should wait for it


class ExpertTally:
    """Of one rank. Others of its tensor-parallel group count the same tokens, so only the first one tells."""

    def __init__(self, counts: Tensor, share: ModelShare) -> None:
        """Takes the counts that routing adds to: [layers of the rank, num_experts] int64."""
        self._counts = counts
        self._share = share
        self._told = counts.tolist()
        self._num_steps = 0

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Tokens inside belong to nobody."""
        before = self._counts.clone()
        yield
        self._counts.copy_(before)

    def report(self) -> ExpertLoads | None:
        """A step is over; what came since the last report, where one is due."""
        self._num_steps += 1
        if self._share.position.place != 0 or self._num_steps % STEPS_PER_REPORT:
            return None
        told, self._told = self._told, self._counts.tolist()
        new = [[now - before for now, before in zip(*rows, strict=True)] for rows in zip(self._told, told, strict=True)]
        return ExpertLoads(by_expert=tuple(map(sum, zip(*new, strict=True))), by_part=self._by_part(new))

    def _by_part(self, new: list[list[int]]) -> tuple[float, ...]:
        """Zeros where none of the rank's layers has experts."""
        totals = [0.0] * self._share.position.plan.ep
        for layer, loads in zip(self._share.layers, new, strict=True):
            if layer in self._share.placements:
                part_loads = self._share.placements[layer].part_loads(loads)
                totals = [total + load for total, load in zip(totals, part_loads, strict=True)]
        return tuple(totals)
