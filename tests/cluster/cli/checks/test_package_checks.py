"""Whether missing and old packages are told with what is lost and what brings them."""

import importlib.metadata

import pytest

from shardline_cluster.cli.checks import package_checks
from shardline_cluster.cli.checks.finding import Level
from shardline_cluster.cli.checks.package_checks import (
    check_launcher,
    check_packages,
    check_python,
    check_server_binary,
)
from shardline_cluster.errors import EmbeddedServerError
from shardline_cluster.serve.serve_options import LauncherKind


def test_an_old_python_is_told_with_the_oldest_that_does() -> None:
    finding = check_python((3, 9))

    assert (finding.level, finding.found) == (Level.BROKEN, "3.9")
    assert "3.11 or newer" in finding.remedy
    assert check_python().level is Level.GOOD


def test_a_missing_package_is_told_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ("torch", "huggingface_hub")
    monkeypatch.setattr(package_checks, "_version", lambda name: None if name in missing else "99")

    findings = {finding.check: finding for finding in check_packages()}

    assert findings["torch"].level is Level.BROKEN
    assert findings["torch"].remedy == "`pip install 'shardline[workers]'` brings it."
    assert findings["huggingface_hub"].level is Level.DOUBTFUL
    assert findings["redis"].level is Level.GOOD


def test_a_package_that_is_too_old_is_told_with_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = ['redis>=8.1; extra == "cluster"', "grpcio>=1.85.1", 'torch>=2.11; extra == "workers"']
    versions = {"redis": "7.4.0", "torch": "2.13.0+cpu"}
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: requirements)
    monkeypatch.setattr(package_checks, "_version", lambda name: versions.get(name, "99"))

    findings = {finding.check: finding for finding in check_packages()}

    assert findings["redis"].found == "7.4.0, but 8.1 or newer is needed"
    assert findings["torch"].level is findings["grpcio"].level is Level.GOOD


def test_without_ray_one_machine_still_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        package_checks, "choose_launcher", lambda *_, **__: (LauncherKind.LOCAL, "Ray is not installed")
    )

    finding = check_launcher()

    assert (finding.level, finding.found) == (Level.DOUBTFUL, "Ray is not installed")


@pytest.mark.parametrize(("is_needed", "level"), [(True, Level.BROKEN), (False, Level.GOOD)])
def test_a_server_to_embed_is_missed_only_where_none_is_given(
    is_needed: bool, level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> None:
        raise EmbeddedServerError("there is no Redis: install one")

    monkeypatch.setattr(package_checks, "find_server_binary", none)

    assert check_server_binary(is_needed=is_needed).level is level
