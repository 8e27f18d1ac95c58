"""Who is to blame where a gang is lost: one rank's end makes others fail too, in any order. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class LossKind(IntEnum):
    """What was seen of a rank; the lower, the more it explains."""

    DIED = 1  # its process ended without a word
    SILENT = 2  # it shows no sign of life
    FAILED = 3  # it says itself that it cannot go on
    FOLLOWED = 4  # it says that it cannot go on without another one


@dataclass(frozen=True, slots=True)
class LossSign:
    """One rank's."""

    kind: LossKind
    text: str  # names the rank


def verdict(signs: Sequence[LossSign]) -> LossSign:
    """The first of the kind that explains most.

    Args:
        signs: in the order in which they were seen, at least one.
    """
    return min(signs, key=lambda sign: sign.kind)
