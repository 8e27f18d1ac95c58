"""What `shardline doctor` prints and exits with; the checks themselves have files of their own."""

import json
from collections.abc import Iterator

import pytest

from shardline_cluster.cli.checks import machine_checks
from shardline_cluster.cli.checks.finding import Finding, broken, doubtful, good
from shardline_cluster.cli.commands import doctor
from shardline_cluster.cli.main import main


def finds(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> None:
    def found(*_: object) -> Iterator[Finding]:
        yield from findings

    monkeypatch.setattr(doctor, "_findings", found)


def test_each_finding_is_a_line_with_its_remedy_below(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finds(monkeypatch, good("Python", "3.11"), doubtful("shm", "small", "Make it large."))

    assert main(["doctor"]) == 0

    assert capsys.readouterr().out == (
        "✓ Python: 3.11\n! shm: small\n    Make it large.\nThis machine can serve: `shardline serve smollm2:135m`\n"
    )


def test_what_would_not_work_is_counted_and_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finds(monkeypatch, broken("port", "taken", "Free it."), good("x", "y"))

    assert main(["doctor"]) == 1

    assert capsys.readouterr().out.endswith("1 thing to mend before this machine can serve\n")


def test_programs_get_a_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    finds(monkeypatch, broken("port", "taken", "Free it."))

    assert main(["doctor", "--json"]) == 1

    assert json.loads(capsys.readouterr().out) == [
        {"check": "port", "level": "broken", "found": "taken", "remedy": "Free it."}
    ]


@pytest.mark.process
def test_a_machine_on_which_the_tests_run_lacks_nothing_that_is_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setattr(machine_checks, "check_gpus", lambda: good("GPUs", "not asked, since that loads torch"))

    main(["doctor", "--json", "--redis-url", "redis://:secret@127.0.0.1:1/0"])

    levels = {entry["check"]: entry["level"] for entry in json.loads(capsys.readouterr().out)}
    assert levels["Python"] == levels["torch"] == levels["redis"] == levels["Redis server to embed"] == "good"
    assert levels["Redis"] == "broken"
