"""Bounds of the numbers that say how tokens are chosen: for requests, flags and a model's own files alike."""

from dataclasses import dataclass

MAX_LOGPROBS = 20  # likeliest tokens that are told beside a token


@dataclass(frozen=True, slots=True)
class SamplingBounds:
    """From `least` to `most`; `least` itself is out where `above_least` is set."""

    least: float
    most: float
    above_least: bool = False

    def allow(self, value: float) -> bool:
        """Whether a value lies within; what is no number does not."""
        return self.least <= value <= self.most and not (self.above_least and value == self.least)

    def __str__(self) -> str:
        if self.above_least:
            return f"more than {self.least} and at most {self.most}"
        return f"{self.least} … {self.most}"


TEMPERATURE = SamplingBounds(0, 10)
TOP_K = SamplingBounds(0, 2**32 - 1)
TOP_P = SamplingBounds(0, 1, above_least=True)
MIN_P = SamplingBounds(0, 1)
REPETITION_PENALTY = SamplingBounds(0.01, 100)  # beyond, logits leave the range of float32
OUTPUT_PENALTY = SamplingBounds(-2, 2)  # frequency and presence, as OpenAI has them
LOGIT_BIAS = SamplingBounds(-100, 100)
LOGPROBS = SamplingBounds(0, MAX_LOGPROBS)
