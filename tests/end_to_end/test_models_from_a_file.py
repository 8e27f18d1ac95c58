"""`serve --config FILE.yaml` with several models: all are ready when it says so, and each answers under its name."""

from pathlib import Path

import pytest

from shardline import Client
from tests.end_to_end.served_cluster import served_cluster

pytestmark = [pytest.mark.process, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(120)]

MODELS = """\
engine: simulated
launcher: local
simulated-step-s: 0.005
models:
  - served-model-name: small
  - served-model-name: large
    max-model-len: 900
"""


def test_two_models_of_one_file_are_served_side_by_side(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(MODELS)

    with served_cluster("--config", str(file)) as cluster, Client(cluster.endpoint) as client:
        models = {model.name: model for model in client.models()}
        texts = [client.generate("Hi", model=name, max_tokens=4).text for name in ("small", "large")]

    assert {name: model.ready_replicas for name, model in models.items()} == {"small": 1, "large": 1}
    assert models["large"].max_model_len == 900
    assert all(texts)
