"""One pool of rank processes for all shapes of a module, and the table that is printed at its end."""

import os
from collections.abc import Iterator

import pytest

from shardline_workers.gang.rank_pool import RankPool
from tests.parity.shape_cases import MOST_RANKS


@pytest.fixture(scope="module")
def pool() -> Iterator[RankPool]:
    pool = RankPool(report=lambda _: None)
    pool.start_children(MOST_RANKS - 1, environment=os.environ)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    print("\n" + "\n".join(lines))
