"""Readers that do what none may: for tests of the campaign itself. They live here since processes import them anew."""

import ctypes
import time
from pathlib import Path
from random import Random

from tests.fuzz.target import FuzzTarget

BAD_CASE = b"7"


def make_number(random: Random) -> bytes:
    """A digit."""
    return str(random.randrange(10)).encode()


def _raise(content: bytes, _folder: Path) -> None:
    if content == BAD_CASE:
        raise KeyError("nobody expects this")
    if content == b"3":
        raise ValueError("a documented refusal")


def _sleep(content: bytes, _folder: Path) -> None:
    if content == BAD_CASE:
        time.sleep(3_600)


def _fill_memory(content: bytes, _folder: Path) -> None:
    if content == BAD_CASE:
        bytearray(1 << 31)


def _crash(content: bytes, _folder: Path) -> None:
    if content == BAD_CASE:
        ctypes.string_at(0)


RAISING = FuzzTarget(name="raising", make=make_number, run=_raise, documented=(ValueError,))
SLEEPING = FuzzTarget(name="sleeping", make=make_number, run=_sleep, documented=(ValueError,))
GREEDY = FuzzTarget(name="greedy", make=make_number, run=_fill_memory, documented=(ValueError,))
CRASHING = FuzzTarget(name="crashing", make=make_number, run=_crash, documented=(ValueError,))
