"""Periods as flags take them: 90s, 30m, 12h, 30d."""

import argparse
import re

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_PERIOD = re.compile(r"(\d{1,9})([smhd])")


def period_s(text: str) -> int:
    """Seconds, for argparse.

    Raises:
        ArgumentTypeError: it is no period, or none at all.
    """
    found = _PERIOD.fullmatch(text.strip())
    if found is None or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no period: write 90s, 30m, 12h or 30d")
    return int(found[1]) * _UNITS_S[found[2]]
