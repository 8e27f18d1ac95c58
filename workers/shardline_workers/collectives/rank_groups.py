"""The groups in which one rank exchanges tensors."""

from dataclasses import dataclass
from typing import Self

import torch

from shardline_workers.collectives.one_rank_communicator import OneRankCommunicator
from shardline_workers.communicator import Communicator


@dataclass(frozen=True, slots=True, kw_only=True)
class RankGroups:
    """A rank's ends of its groups; see `RankPosition` for who is in them. They are closed together."""

    tensor: Communicator  # ranks that share its matrices; its rank there is the position's place
    stage: Communicator  # ranks of its pipeline stage, to which experts are dealt
    pipeline: Communicator  # ranks above and below it; its rank there is the position's stage

    @classmethod
    def alone(cls, device: torch.device) -> Self:
        """Of the only rank there is."""
        one = OneRankCommunicator(device)
        return cls(tensor=one, stage=one, pipeline=one)

    def close(self) -> None:
        """Leaves all groups."""
        for group in (self.tensor, self.stage, self.pipeline):
            group.close()
