"""What tests of the engine share: the native library, built once before any test that wants it."""

import os

import pytest

from shardline_workers.kernels.native_library import NativeLibrary, load_native_library


@pytest.fixture(scope="session")
def native_library() -> NativeLibrary:
    """The native kernels. A machine that runs these tests has a compiler: without one they fail, not pass."""
    return load_native_library(os.environ, lambda _: None)
