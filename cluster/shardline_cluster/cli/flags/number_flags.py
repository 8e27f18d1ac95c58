"""Numbers as flags take them: within bounds, which the error names."""

import argparse
from collections.abc import Callable

from shardline_workers.sampling_bounds import SamplingBounds

NumberType = Callable[[str], float]


def number_from(least: float, most: float = float("inf"), *, whole: bool = False) -> NumberType:
    """A converter for argparse that takes numbers within bounds, which its error names."""

    def convert(text: str) -> float:
        try:
            number = int(text) if whole else float(text)
        except ValueError:
            kind = "a whole number" if whole else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {kind}") from None
        if not least <= number <= most:
            bounds = f"from {least} to {most}" if most != float("inf") else f"{least} or more"
            raise argparse.ArgumentTypeError(f"{text} is out of bounds: it must be {bounds}")
        return number

    return convert


def number_within(bounds: SamplingBounds, *, whole: bool = False) -> NumberType:
    """The same with the bounds that a request's number has. Where the least is out, the router says so."""
    return number_from(bounds.least, bounds.most, whole=whole)
