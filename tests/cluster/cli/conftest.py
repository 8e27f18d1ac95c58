"""A home without a running server and without variables of ours, and scripted routers to talk to."""

from pathlib import Path

import pytest

from tests.cluster.client.conftest import start_router

__all__ = ["start_router"]


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which run files lie during a test."""
    for variable in (
        "SHARDLINE_ENDPOINT",
        "SHARDLINE_REDIS_URL",
        "REDIS_URL",
        "SHARDLINE_NAME",
        "SHARDLINE_MODEL",
        "SHARDLINE_API_KEY",
    ):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path
