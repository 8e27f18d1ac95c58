"""The leader's side of the step channel: numbers frames, and adds now and then what shows whether a rank has drifted.

Ranks get deltas only. One that is lost or applied twice would put another sequence's tokens into a batch, without any
error. So the leader mirrors, for each data-parallel group, what plans leave on its ranks, and every so many steps sends
the checksum of that along. Ranks compare it with their own before they apply the step.
"""

from collections.abc import Sequence

import numpy as np

from shardline_workers.gang.step_channel import StepChannelError
from shardline_workers.gang.step_encoding import encode_probe, encode_step
from shardline_workers.ranks.block_tables import BlockTables
from shardline_workers.ranks.slot_parameters import SlotParameters
from shardline_workers.ranks.state_checksum import StateChecksum
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits
from shardline_workers.scheduling.step_plan import SlotPlan

CHECK_EVERY_STEPS = 64  # about a second of decoding


class StateDriftError(StepChannelError):
    """A rank keeps other state than the leader: a fault of ours, or of its memory. It must not compute on."""


class StepWriter:
    """Makes all frames of one gang and model, in order."""

    def __init__(self, limits: SchedulerLimits, *, num_groups: int) -> None:
        """Begins with ranks that have got nothing yet."""
        self._mirrors = [_Mirror(limits) for _ in range(num_groups)]
        self._num_steps = 0
        self.number = 0  # of the last frame
        self.checksums: tuple[StateChecksum, ...] | None = None  # in the last step, by group

    def step(self, plans: Sequence[SlotPlan], *, num_threads: int) -> bytes:
        """The next step, one plan for each group.

        Raises:
            FrameError: it is larger than a frame may be.
        """
        self.number += 1
        self._num_steps += 1
        is_checked = self._num_steps % CHECK_EVERY_STEPS == 0
        self.checksums = tuple([mirror.checksum() for mirror in self._mirrors]) if is_checked else None
        for mirror, plan in zip(self._mirrors, plans, strict=True):
            mirror.apply(plan)
        return encode_step(plans, number=self.number, num_threads=num_threads, checksums=self.checksums)

    def probe(self, num_tokens: int, *, num_threads: int) -> bytes:
        """A probe of so many tokens, on all ranks. It leaves nothing."""
        self.number += 1
        return encode_probe(number=self.number, num_tokens=num_tokens, num_threads=num_threads)


def check_drift(own: StateChecksum, leaders: StateChecksum, *, rank: int, number: int) -> None:
    """Passes a rank that has what its leader has.

    Args:
        own: of the rank's state before it applies a step.
        leaders: came with the step.
        rank: whose.
        number: of the step.

    Raises:
        StateDriftError: they differ.
    """
    if own.differs_from(leaders):
        raise StateDriftError(
            f"rank {rank} has drifted from its leader before step {number}: the rank has {own}, the leader {leaders}"
        )


class _Mirror:
    """What plans leave on the ranks of one group."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self._num_slots = limits.max_num_seqs
        self._tables = BlockTables(np.zeros((limits.max_num_seqs, limits.max_blocks_per_seq), np.int64))
        self._slots = SlotParameters(limits.max_num_seqs)

    def apply(self, plan: SlotPlan) -> None:
        for start in plan.starts:
            self._slots.enter(start)
        self._tables.extend(plan.chunks)

    def checksum(self) -> StateChecksum:
        return StateChecksum(
            block_tables=self._tables.checksum(self._num_slots), slots=self._slots.checksum(self._num_slots)
        )
