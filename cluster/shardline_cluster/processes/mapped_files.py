"""Which processes of this machine have a file mapped, as far as this user may look. Elsewhere than on Linux: none."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def pids_that_map(beginnings: Sequence[str], root: Path = Path("/proc")) -> list[int]:
    """Processes that map a file whose path begins with one of these.

    Args:
        beginnings: of absolute paths, without links.
        root: where the system tells of processes.
    """
    return sorted(int(folder.name) for folder in root.glob("[0-9]*") if _maps(folder, beginnings))


def _maps(folder: Path, beginnings: Sequence[str]) -> bool:
    """A line of `maps` ends in the file's path, after five columns."""
    with suppress(OSError):  # another user's, or gone
        for line in (folder / "maps").read_text(errors="replace").splitlines():
            path = line[line.find("/") :] if "/" in line else ""
            if path and path.startswith(tuple(beginnings)):
                return True
    return False
