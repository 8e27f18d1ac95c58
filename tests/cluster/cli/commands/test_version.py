"""`shardline version`."""

import json
import platform

import grpc
import pytest

from shardline_cluster.cli.main import main


def test_versions_are_listed_and_what_is_missing_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardline_cluster.cli.commands.version._PACKAGES", ("grpcio", "no-such-package"))

    assert main(["version"]) == 0

    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["grpcio", grpc.__version__] in lines
    assert ["no-such-package", "not installed"] in lines
    assert ["python", platform.python_version()] in lines


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--json"]) == 0

    versions = json.loads(capsys.readouterr().out)
    assert versions["grpcio"] == grpc.__version__
    assert "shardline" in versions
