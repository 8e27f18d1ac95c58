"""Options are checked at birth, and the launcher is chosen with a word of why."""

import importlib.util
import sys

import pytest

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import EngineOptions
from shardline_cluster.serve import serve_options
from shardline_cluster.serve.serve_options import LauncherKind, ServeOptions, choose_launcher


def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)


def test_ray_is_the_default_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(serve_options, "is_own_address", lambda host: True)

    assert choose_launcher(None, ray_address=None) == (LauncherKind.RAY, "")


def test_without_ray_plain_processes_are_used_and_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_ray(monkeypatch)

    kind, note = choose_launcher(None, ray_address=None)

    assert kind is LauncherKind.LOCAL
    assert "Ray is not installed" in note


@pytest.mark.parametrize(("asked", "address"), [("ray", None), (None, "head:6379")])
def test_who_asks_for_ray_where_there_is_none_is_told(
    asked: str | None, address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_ray(monkeypatch)

    with pytest.raises(ConfigurationError, match="not installed"):
        choose_launcher(asked, ray_address=address)


def test_plain_processes_need_no_ray_and_no_note(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_ray(monkeypatch)

    assert choose_launcher("local", ray_address=None) == (LauncherKind.LOCAL, "")


def test_elsewhere_than_on_linux_a_cluster_of_its_own_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(sys, "platform", "darwin")

    assert choose_launcher(None, ray_address=None)[0] is LauncherKind.LOCAL
    assert choose_launcher(None, ray_address="head:6379")[0] is LauncherKind.RAY


def test_where_a_loopback_address_is_not_up_plain_processes_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(serve_options, "HEAD_IP", "127.0.0.1")
    monkeypatch.setattr(serve_options, "NODE_IP", "192.0.2.1")  # reserved for documentation: no machine has it

    kind, note = choose_launcher(None, ray_address=None)

    assert kind is LauncherKind.LOCAL
    assert "does not have the loopback address 192.0.2.1" in note
    with pytest.raises(ConfigurationError, match="loopback address"):
        choose_launcher("ray", ray_address=None)
    assert choose_launcher("ray", ray_address="head:6379")[0] is LauncherKind.RAY


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"num_routers": 0}, "--routers is 0"),
        ({"num_replicas": 1025}, "--replicas is 1025"),
        ({"ray_address": "head:6379"}, "--launcher local"),
        ({"ray_node_ip": "10.0.0.2"}, "--ray-node-ip names a node of the cluster at --ray-address"),
        ({"engine": EngineOptions(rank_resource="GPU")}, "--rank-resource GPU is Ray's, but --launcher local"),
    ],
)
def test_what_cannot_be_is_refused_by_name(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        ServeOptions(
            model="simulated",
            served_model_name="simulated",
            launcher=LauncherKind.LOCAL,
            cache_folder="/x",
            **wrong,  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(
    ("address", "words"),
    [("ray://head:10001", "client protocol"), ("head:6379", "--redis-url"), ("10.0.0.1:6379", "--redis-url")],
)
def test_a_ray_cluster_that_cannot_be_joined_so_is_refused(address: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        _joining(address, redis_url=None)


@pytest.mark.parametrize(
    ("address", "redis_url"), [("auto", None), ("127.0.0.1:6379", None), ("head:6379", "redis://redis:6379/0")]
)
def test_a_ray_cluster_whose_machines_reach_redis_can_be_joined(address: str, redis_url: str | None) -> None:
    assert _joining(address, redis_url=redis_url).ray_address == address


def _joining(address: str, *, redis_url: str | None) -> ServeOptions:
    return ServeOptions(
        model="simulated",
        served_model_name="simulated",
        launcher=LauncherKind.RAY,
        cache_folder="/x",
        ray_address=address,
        redis_url=redis_url,
    )
