"""One built library for all tests here, and each instruction set that this machine has."""

import os
from collections.abc import Iterator

import pytest

from shardline_workers.kernels.native_library import NativeLibrary, load_native_library
from tests.workers.kernels.native.programs import Machine


@pytest.fixture(scope="session")
def library() -> NativeLibrary:
    return load_native_library(os.environ, print)


@pytest.fixture(scope="session")
def machine(library: NativeLibrary) -> Iterator[Machine]:
    """Two threads, the fastest instruction set."""
    with Machine(library, max_threads=2) as machine:
        yield machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Time for the compiler, which the first test waits for."""
    for item in items:
        if item.path.parent.name == "native":
            item.add_marker(pytest.mark.timeout(300))
