"""How long steps take, by their number of tokens: moving figures of what was measured. Pure."""

_WEIGHT = 0.25  # of a new measurement: some ten steps forget a load that has gone
_UNMEASURED_S = 1.0  # before the first step: a guess on the long side, since it becomes a time limit


class StepTimes:
    """Moving averages for 1, 2-3, 4-7, 8-15 … tokens a step."""

    def __init__(self) -> None:
        self._averages_s: dict[int, float] = {}  # by bits of the number of tokens

    def record(self, num_tokens: int, seconds: float) -> None:
        """Books one step."""
        bits = num_tokens.bit_length()
        average = self._averages_s.get(bits, seconds)
        self._averages_s[bits] = average + _WEIGHT * (seconds - average)

    def expected_s(self, num_tokens: int) -> float:
        """How long a step of so many tokens should take, rather too long than too short.

        Sizes that were never measured are judged by the next larger one, or else by the largest, in proportion.
        """
        bits = num_tokens.bit_length()
        larger = [known for known in self._averages_s if known >= bits]
        if larger:
            return self._averages_s[min(larger)]
        if not self._averages_s:
            return _UNMEASURED_S
        largest = max(self._averages_s)
        return self._averages_s[largest] * 2.0 ** (bits - largest)
