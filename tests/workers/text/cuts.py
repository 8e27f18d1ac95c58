"""Cuts a sequence into pieces at hypothesis' will."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from hypothesis import strategies as st

Piece = TypeVar("Piece", str, bytes)


def cut(whole: Piece, at: Sequence[int]) -> list[Piece]:
    """`whole` in pieces, empty ones included."""
    edges = [0, *sorted(min(edge, len(whole)) for edge in at), len(whole)]
    return [whole[start:end] for start, end in pairwise(edges)]


edges = st.lists(st.integers(0, 60), max_size=8)
