"""Four processes for a module's tests, each of which makes groups of them as it likes."""

from collections.abc import Iterator

import pytest

from shardline_workers.kernels.native_library import NativeLibrary
from tests.workers.collectives.rank_processes import RankProcess


@pytest.fixture(scope="module")
def processes(native_library: NativeLibrary) -> Iterator[list[RankProcess]]:
    """For tests that leave them whole. The native library is built before."""
    started = [RankProcess() for _ in range(4)]
    yield started
    for process in started:
        process.end()


@pytest.fixture
def mortals(native_library: NativeLibrary) -> Iterator[list[RankProcess]]:
    """Three processes for one test, to be killed or stopped."""
    started = [RankProcess() for _ in range(3)]
    yield started
    for process in started:
        process.end()
