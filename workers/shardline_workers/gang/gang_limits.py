"""How patient a gang is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GangLimits:
    """Seconds. A death is seen at once, by a closed connection; silence is what a stopped or wedged process shows."""

    join_s: float = 60.0  # for all rank processes to come: they start, and import torch
    beat_s: float = 1.0  # between two signs of life, both ways, whatever a rank computes
    silence_s: float = 5.0  # without a sign of life the other one counts as lost
    loading_silence_s: float = 30.0  # the same while a model is loaded: reading from a slow disk may hold up a process
    wait_s: float = 120.0  # in a collective; a stage waits there while the one before it computes a long prompt
    release_s: float = 10.0  # for ranks to free a model
    handshake_s: float = 5.0  # for whoever connects to prove that it belongs here

    def __post_init__(self) -> None:
        """Raises ValueError where a beat that is sent in time could be late."""
        if not 0 < 2 * self.beat_s <= min(self.silence_s, self.loading_silence_s):
            raise ValueError(
                f"beat_s is {self.beat_s}; it must be more than 0 and at most half of silence_s = {self.silence_s} and"
                f" loading_silence_s = {self.loading_silence_s}"
            )
