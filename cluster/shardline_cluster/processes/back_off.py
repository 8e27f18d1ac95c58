"""How long a thing that keeps failing waits before it is started again. Pure."""

from dataclasses import dataclass

from shardline_cluster.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class BackOff:
    """Doubling pauses between `first_s` and `longest_s`; whoever was healthy for `healthy_s` begins anew. Seconds."""

    first_s: float = 1.0
    longest_s: float = 60.0
    healthy_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.first_s <= self.longest_s:
            raise ConfigurationError(
                f"a back-off goes from first_s to longest_s, both above 0, but was given {self.first_s} and "
                f"{self.longest_s}"
            )

    def failures_after(self, failures: int, *, healthy_for_s: float) -> int:
        """Failures in a row once another one has happened after `healthy_for_s` seconds of health."""
        return 1 if healthy_for_s >= self.healthy_s else failures + 1

    def pause_s(self, failures: int) -> float:
        """Pause before the next start after so many failures in a row; none after none."""
        if failures == 0:
            return 0.0
        doublings = min(failures - 1, 32)  # beyond that every pause is the longest one, and powers stay small
        return min(self.first_s * 2.0**doublings, self.longest_s)
