"""Keeps the built kernels: a shared object for each version of sources, flags and compiler, built where it is missing.

    <cache>/native/<sources and flags>/<compiler>.so

Two processes may start at once: one builds, the other waits for it. A file appears under its name only when it is
whole. Where there is no compiler, whatever was built from the same sources before is taken: an image may bring it.
"""

import fcntl
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from shardline_workers.kernels.native_compiler import Compiler, CompilerError, build, find_compiler, unit_flags

SOURCES = Path(__file__).parent / "native"
_KEY_CHARACTERS = 16


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where built kernels and packed weights lie: `$XDG_CACHE_HOME/shardline`, by default `~/.cache/shardline`."""
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shardline"


def built_library(environment: Mapping[str, str], report: Callable[[str], None], *, sources: Path = SOURCES) -> Path:
    """The shared object of these sources, built now where it is not in the cache.

    Args:
        environment: says where compiler and cache are.
        report: gets a line when something is built, since that takes seconds.
        sources: folder of .h and .cpp files.

    Raises:
        CompilerError: it is not in the cache and cannot be built.
        OSError: the cache folder cannot be written.
    """
    units = sorted(sources.glob("*.cpp"))
    folder = cache_folder(environment) / "native" / _source_key(sources, units)
    try:
        compiler = find_compiler(environment)
    except CompilerError:
        ready = sorted(folder.glob("*.so"))
        if not ready:
            raise
        return ready[0]
    library = folder / f"{_digest([compiler.identity.encode()])}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / "lock"):
            if not library.exists():
                report(f"building the native kernels with {compiler.command[0]}; this is done once")
                _build_into(library, compiler, units, environment)
    return library


def ready_library(environment: Mapping[str, str], *, sources: Path = SOURCES) -> Path | None:
    """The shared object that `built_library` would take without building anything; None where it would build, or fail.

    Args:
        environment: says where compiler and cache are.
        sources: folder of .h and .cpp files.
    """
    folder = cache_folder(environment) / "native" / _source_key(sources, sorted(sources.glob("*.cpp")))
    try:
        library = folder / f"{_digest([find_compiler(environment).identity.encode()])}.so"
    except CompilerError:
        return next(iter(sorted(folder.glob("*.so"))), None)
    return library if library.exists() else None


def _build_into(library: Path, compiler: Compiler, units: Sequence[Path], environment: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent, prefix="building-") as scratch:
        build(compiler, units, Path(scratch), environment=environment).replace(library)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a file's lock. It falls with the process, so that a killed builder stops nobody."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _source_key(sources: Path, units: Sequence[Path]) -> str:
    parts = [platform.machine().encode(), repr([unit_flags(unit) for unit in units]).encode()]
    for path in sorted([*sources.glob("*.h"), *units]):
        parts += [path.name.encode(), path.read_bytes()]
    return _digest(parts)


def _digest(parts: Sequence[bytes]) -> str:
    told = sha256()
    for part in parts:
        told.update(len(part).to_bytes(8, "little") + part)
    return told.hexdigest()[:_KEY_CHARACTERS]
