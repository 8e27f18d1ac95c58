"""What a keeper says itself stands in the format of its replica's log."""

import json

import pytest

from shardline_cluster.controller.replica_keeper import SPEC_VARIABLE, _line


@pytest.mark.parametrize("spec", [None, "{}", '{"telemetry": {"log_format": "human"}}'])
def test_for_people_it_is_plain(spec: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if spec is not None:
        monkeypatch.setenv(SPEC_VARIABLE, spec)

    assert _line("the owner is gone") == "the owner is gone"


def test_for_machines_it_is_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SPEC_VARIABLE, '{"telemetry": {"log_format": "json"}}')

    told = json.loads(_line("the owner is gone"))

    assert (told["process"], told["level"], told["message"]) == ("keeper", "critical", "the owner is gone")
