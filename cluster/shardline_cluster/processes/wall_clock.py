"""The time of day, as records and keys know it."""

import time


def wall_clock_ms() -> int:
    """Milliseconds since 1970. May go back; two hosts never quite agree."""
    return time.time_ns() // 1_000_000
