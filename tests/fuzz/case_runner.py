"""Runs single cases: each from its own random numbers, against a limit of CPU time, judged by how it ends."""

import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType

from tests.fuzz.target import FuzzTarget

CASE_LIMIT_S = 5.0  # of CPU time; ordinary cases take a thousandth of it
_WORDING = ("refuse", "_refuse")
READ = "read"  # how a case is counted whose input was taken


class TooSlowError(BaseException):
    """A case used up its time. No Exception, so that no reader takes it for a broken file."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A case that ended as none may."""

    index: int
    why: str


def case_input(target: FuzzTarget, seed: int, index: int) -> bytes:
    """The bytes of one case, the same at each call."""
    return target.make(Random(f"{seed} {target.name} {index}"))


def run_case(target: FuzzTarget, content: bytes, folder: Path) -> str:
    """Runs one case. Returns READ, or the function that refused the input, `file.py:function`.

    Raises:
        BaseException: whatever the reader raised that is not documented; TooSlowError.
    """
    with _time_limit(CASE_LIMIT_S):
        try:
            target.run(content, folder)
        except target.documented as error:
            return _origin(error)
    return READ


def finding_of(index: int, error: BaseException) -> Finding:
    """A finding in words, with the lines that led to it."""
    lines = traceback.format_exception(error)
    return Finding(index, "".join(lines)[-2_000:])


@contextmanager
def _time_limit(limit_s: float) -> Iterator[None]:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TooSlowError(f"a case took more than {limit_s} s of CPU time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _origin(error: Exception) -> str:
    """Where an error arose: the last of our own functions, but for those that only word errors; else its name."""
    found, trace = type(error).__name__, error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        path = Path(code.co_filename)
        if "shardline_" in str(path) and code.co_name not in _WORDING:
            found = f"{path.name}:{code.co_name}"
        trace = trace.tb_next
    return found
