"""`router`, `controller` and `replica` say what they lack before they become anything, and what they become."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from shardline_cluster.cli.commands import controller, router
from shardline_cluster.cli.main import main
from shardline_cluster.serve.role_folder import controller_folder

NOWHERE = ("--redis-url", "unix:///nowhere/redis.sock")


class _BecameError(BaseException):
    """In the place of the end of this program."""


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> dict[str, Mapping[str, str]]:
    """What the command would have become: variables by module."""
    seen: dict[str, Mapping[str, str]] = {}

    def become(module: str, environment: Mapping[str, str]) -> NoReturn:
        seen[module] = environment
        raise _BecameError

    for command in (router, controller):
        monkeypatch.setattr(command, "become", become)
    return seen


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("router",), "`shardline router` needs a Redis that all hosts share"),
        (("router", "--redis-url", "http://x"), "must be redis://"),
        (("router", *NOWHERE, "--host", "0.0.0.0"), "--allow-unauthenticated"),
        (("router", *NOWHERE, "--tls-cert", "x.pem"), "--tls-cert alone is no TLS"),
        (("router", *NOWHERE, "--redis-prefix", "a b"), "the prefix of keys in Redis is 'a b'"),
        (("controller",), "`shardline controller` needs a Redis"),
        (("controller", *NOWHERE, "--launcher", "ray"), "--launcher ray needs --ray-address HOST:PORT"),
        (("controller", *NOWHERE, "--cluster", "a b"), "the name of the cluster is 'a b'"),
        (("replica", "tiny", *NOWHERE), "cannot be reached"),
    ],
)
def test_what_a_role_lacks_is_said(
    arguments: tuple[str, ...],
    words: str,
    became: dict[str, Mapping[str, str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("REDIS_URL", "SHARDLINE_REDIS_URL"):
        monkeypatch.delenv(variable, raising=False)

    assert main(arguments) == 1

    assert words in capsys.readouterr().err
    assert became == {}


def test_a_router_becomes_one_that_waits_for_a_redis_that_is_away(
    became: dict[str, Mapping[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(_BecameError):
        main(["router", *NOWHERE, "--grpc-port", "0", "--cluster", "east", "--queue-terms", "short"])

    config = json.loads(became["router.router_process"]["SHARDLINE_ROUTER_CONFIG"])
    assert (config["port"], config["cluster"], config["redis_url"]) == (0, "east", NOWHERE[1])
    assert config["telemetry"]["metrics_port"] == 0
    assert "going on, it may come" in capsys.readouterr().err


def test_a_controller_becomes_one_over_processes_or_over_ray(
    became: dict[str, Mapping[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardline_cluster.serve.role_folder.default_root", lambda: tmp_path / "r")
    for more in ((), ("--ray-address", "10.0.0.1:6379")):
        with pytest.raises(_BecameError):
            main(["controller", *NOWHERE, "--cluster", "east", *more])

    local = json.loads(became["controller.controller_process"]["SHARDLINE_CONTROLLER_CONFIG"])
    on_ray = json.loads(became["controller.ray_controller_process"]["SHARDLINE_RAY_CONTROLLER_CONFIG"])
    assert local["controller"]["cluster"] == on_ray["controller"]["cluster"] == "east"
    assert local["drain_at_exit_s"] is not None, "nobody would keep its replicas"
    assert on_ray["address"] == "10.0.0.1:6379"
    assert on_ray["drain_at_exit_s"] is None, "replicas live on for the next controller"


def test_a_controllers_folder_is_the_same_in_its_next_life_and_another_one_for_another_cluster(tmp_path: Path) -> None:
    def folder(cluster: str, url: str = "redis://:secret@host:1") -> Path:
        return controller_folder(url, prefix="p", cluster=cluster, root=tmp_path / "r")

    assert folder("a") == folder("a", "redis://:other@host:1")
    assert folder("a") != folder("b")
    assert folder("a").stat().st_mode & 0o777 == 0o700
