"""Finds a C++ compiler and builds one shared object of many units, each with the flags of its instruction set.

It knows flags and file names, but not what the units compute.
"""

import platform
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

COMPILERS = ("c++", "g++", "clang++")  # in this order, behind $CXX
COMPILE_TIMEOUT_S = 300
# As native/api.h says. No -march and no -ffast-math: both would change results.
_COMMON_FLAGS = (
    "-std=c++17",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fPIC",
    "-fvisibility=hidden",
    "-pthread",
)
# What the first line of a unit begins with that is for one instruction set, and the machines that have it.
_FLAGS_MARKS = (("// flags:", ("x86_64", "AMD64")), ("// arm64 flags:", ("aarch64", "arm64")))


class CompilerError(Exception):
    """There is no compiler, or it could not build the kernels; the text says which, and what it said."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler that is there."""

    command: tuple[str, ...]
    identity: str  # where it lies, its size and time: another one has another identity


def find_compiler(environment: Mapping[str, str]) -> Compiler:
    """The compiler that $CXX names, else the first one on $PATH.

    Raises:
        CompilerError: none is there; the text names what was looked for.
    """
    wanted = environment.get("CXX", "").strip()
    candidates = [shlex.split(wanted)] if wanted else [[name] for name in COMPILERS]
    for command in candidates:
        found = shutil.which(command[0], path=environment.get("PATH", ""))
        if found:
            return Compiler((found, *command[1:]), _identity(Path(found).resolve(), command[1:]))
    looked_for = f"CXX={wanted}" if wanted else ", ".join(COMPILERS)
    raise CompilerError(f"no C++ compiler was found (looked for {looked_for} on PATH)")


def unit_flags(unit: Path, machine: str | None = None) -> tuple[str, ...] | None:
    """Flags for one unit on a machine, by its first line; None where it is for another kind of machine."""
    with unit.open(encoding="utf-8") as file:
        first_line = file.readline()
    for mark, machines in _FLAGS_MARKS:
        if first_line.startswith(mark):
            is_here = (machine or platform.machine()) in machines
            return (*_COMMON_FLAGS, *first_line.removeprefix(mark).split()) if is_here else None
    return _COMMON_FLAGS


def build(
    compiler: Compiler,
    units: Sequence[Path],
    folder: Path,
    *,
    environment: Mapping[str, str],
    machine: str | None = None,
) -> Path:
    """Compiles all units side by side and links them to one shared object in `folder`.

    Args:
        compiler: what compiles.
        units: .cpp files; those for other kinds of machine are left out.
        folder: where objects and library go.
        environment: of the compiler's processes.
        machine: what the compiler compiles for; this one where it is None.

    Raises:
        CompilerError: the compiler refused a unit, or took too long.
    """
    with ThreadPoolExecutor() as threads:
        objects = list(threads.map(lambda unit: _compile(compiler, unit, folder, environment, machine), units))
    library = folder / "kernels.so"
    linked = [str(path) for path in objects if path is not None]
    _run([*compiler.command, "-shared", "-pthread", "-o", str(library), *linked], environment, what="linking")
    return library


def _compile(
    compiler: Compiler, unit: Path, folder: Path, environment: Mapping[str, str], machine: str | None
) -> Path | None:
    flags = unit_flags(unit, machine)
    if flags is None:
        return None
    compiled = folder / f"{unit.stem}.o"
    _run([*compiler.command, *flags, "-c", str(unit), "-o", str(compiled)], environment, what=unit.name)
    return compiled


def _run(command: list[str], environment: Mapping[str, str], *, what: str) -> None:
    try:
        subprocess.run(
            command,
            env=dict(environment),
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=COMPILE_TIMEOUT_S,
        )
    except subprocess.CalledProcessError as error:
        raise CompilerError(f"{command[0]} refused {what}: {_first_errors(error.stderr)}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilerError(f"{command[0]} failed at {what}: {error}") from error


def _first_errors(told: str) -> str:
    lines = [line for line in told.splitlines() if "error" in line] or told.splitlines()
    return "; ".join(lines[:3]) or "it said nothing"


def _identity(path: Path, arguments: Sequence[str]) -> str:
    # Not its --version: that would be a process at every start, for kernels that were built long ago.
    status = path.stat()
    return f"{path} {status.st_size} {status.st_mtime_ns} {shlex.join(arguments)}"
