"""Where the tests get Gemma 3 270M from: a file that whoever runs them has fetched, as its terms are Google's own."""

import os
from pathlib import Path

import pytest

VARIABLE = "SHARDLINE_TEST_GEMMA3_GGUF"


def gemma3_gguf() -> Path:
    """The file's path; the test is skipped where nobody names one."""
    told = os.environ.get(VARIABLE)
    if not told:
        pytest.skip(
            f"{VARIABLE} names no file: `shardline serve gemma3:270m` fetches it into the cache folder's models"
            " (Gemma's terms of use apply)"
        )
    path = Path(told)
    assert path.is_file(), f"{VARIABLE} is {told!r}: there is no such file"
    return path
