"""What a frame of the step channel says: the leader's words and the ranks' answers. Plain data."""

from dataclasses import dataclass

from shardline_workers.engine import ExpertLoads
from shardline_workers.ranks.state_checksum import StateChecksum
from shardline_workers.scheduling.step_plan import SampledToken, SlotPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFrame:
    """One step, as a rank of one data-parallel group gets it."""

    number: int  # counts steps, one after the other
    num_threads: int
    plan: SlotPlan  # of the rank's group
    checksum: StateChecksum | None = None  # of the group's mirrored state before this plan, where it is to be compared


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFrame:
    """Tokens that belong to nobody; all ranks compute them."""

    number: int
    num_tokens: int
    num_threads: int


@dataclass(frozen=True, slots=True)
class StopFrame:
    """The last frame."""


Frame = StepFrame | ProbeFrame | StopFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledAnswer:
    """What a step brought."""

    number: int
    sampled: list[SampledToken]  # one for each row of logits, in the plan's order; none of a rank that does not choose
    busy_s: float  # that the rank computed, without waiting for its neighbours in the pipeline
    expert_loads: ExpertLoads | None = None  # where it is time to tell them


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedAnswer:
    """A probe is over."""

    number: int
    nonsense: str | None = None  # the device computes that


Answer = SampledAnswer | ProbedAnswer


class FrameError(ValueError):
    """Bytes that are no frame of this version; the text says what is wrong with them."""
