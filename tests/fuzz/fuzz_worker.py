"""One process of a campaign: runs its share of the cases within a bound of memory and tells how far it is.

The process is there to be lost: what ends it (a crash of native code, or its parent's kill) is the finding of the case
that it had last told.
"""

import os
import resource
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import MutableSequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.case_runner import Finding, case_input, finding_of, run_case
from tests.fuzz.target import FuzzTarget

MEMORY_ROOM_BYTES = 512 << 20  # of address space, beyond what a worker has when everything is imported
TELL_EVERY = 200  # cases
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The cases of one worker: `first`, `first + step`, … below `stop`."""

    seed: int
    first: int
    step: int
    stop: int


@dataclass(slots=True)
class Progress:
    """What a worker has done so far, or several together."""

    num_cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    peak_bytes: int = 0  # resident memory
    start_bytes: int = 0  # resident memory when the bound was set


def work(target: FuzzTarget, share: Share, pipe: Connection, place: MutableSequence[int]) -> None:
    """Runs a share. Before each case its index goes to `place[0]`, memory that the parent sees; what was done since the
    last word goes through the pipe."""
    _silence()
    _bound_memory()
    told, start_bytes = Progress(), _resident_bytes()
    with tempfile.TemporaryDirectory(dir=_memory_folder()) as folder:
        for number, index in enumerate(range(share.first, share.stop, share.step)):
            place[0] = index
            _run(target, share.seed, index, folder=Path(folder), told=told)
            if number % TELL_EVERY == 0 or told.findings:
                told = _tell(told, pipe, start_bytes=start_bytes)
        _tell(told, pipe, start_bytes=start_bytes)


def _run(target: FuzzTarget, seed: int, index: int, *, folder: Path, told: Progress) -> None:
    told.num_cases += 1
    try:
        told.outcomes[run_case(target, case_input(target, seed, index), folder)] += 1
    except BaseException as error:  # a panic of Rust code is no Exception
        told.findings.append(finding_of(index, error))


def _tell(told: Progress, pipe: Connection, *, start_bytes: int) -> Progress:
    told.peak_bytes, told.start_bytes = _resident_bytes(), start_bytes
    pipe.send(told)
    return Progress()


def _bound_memory() -> None:
    num_pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = num_pages * _PAGE_BYTES + MEMORY_ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _resident_bytes() -> int:
    """The most that was resident at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _silence() -> None:
    """Panics of Rust code and warnings of broken numbers write some lines each."""
    warnings.simplefilter("ignore")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.__stderr__.fileno() if sys.__stderr__ else 2)
    os.close(nowhere)


def _memory_folder() -> str | None:
    """Files that live for a millisecond need no disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
