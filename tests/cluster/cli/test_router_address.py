"""How a command finds the routers."""

import argparse
import os
import time
from pathlib import Path

import pytest

from shardline import TlsOptions
from shardline.errors import InvalidArgumentError
from shardline_cluster.cli.router_address import NoRouterError, add_router_flags, connect, router_address
from shardline_cluster.cli.run_file import NotRunningError, RunFile, write_run_file
from shardline_cluster.errors import ConfigurationError
from tests.cluster.client.conftest import StartRouter
from tests.cluster.client.dead_sockets import RudeListener, unused_address


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_router_flags(parser)
    return parser.parse_args(given)


def test_endpoints_go_before_the_run_file() -> None:
    write_run_file(
        RunFile(
            name="default",
            endpoints=("of-the-file:1", "of-the-file:2"),
            redis_url="redis://x",
            redis_prefix="p",
            pid=os.getpid(),
            started=time.time(),
        )
    )

    assert router_address(arguments()).endpoints == ("of-the-file:1", "of-the-file:2")
    assert router_address(arguments("--endpoint", "a:1", "--endpoint", "b:2")).endpoints == ("a:1", "b:2")


def test_neither_is_an_error() -> None:
    with pytest.raises(NotRunningError, match="no server named 'other'"):
        router_address(arguments("--name", "other"))


def test_one_router_that_answers_is_enough(start_router: StartRouter) -> None:
    with connect(arguments("--endpoint", unused_address(), "--endpoint", start_router().address)) as client:
        assert client.models()[0].name == "scripted"


def test_none_that_answers_is_told_with_all_addresses() -> None:
    first, second = unused_address(), unused_address()

    with pytest.raises(NoRouterError, match=f"no router answers at {first}, {second}: is `shardline serve` running"):
        connect(arguments("--endpoint", first, "--endpoint", second))


def test_what_is_no_router_is_told_with_what_grpc_made_of_it() -> None:
    with RudeListener() as rude, pytest.raises(NoRouterError, match=r"The last try: UNAVAILABLE: .*reset"):
        connect(arguments("--endpoint", rude.address))


def test_a_key_comes_from_the_line_or_from_a_file_and_is_in_no_representation(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sl-filed\n")
    here = ("--endpoint", "127.0.0.1:1")

    given = router_address(arguments(*here, "--api-key", "sl-given"))
    filed = router_address(arguments(*here, "--api-key-file", str(tmp_path / "key")))

    assert (given.api_key, filed.api_key) == ("sl-given", "sl-filed")
    assert "sl-given" not in repr(given)
    with pytest.raises(ConfigurationError, match="cannot read --api-key-file /nowhere/key: No such file"):
        router_address(arguments(*here, "--api-key-file", "/nowhere/key"))


def test_a_keys_file_on_the_line_goes_before_the_key_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sl-filed\n")
    parser = argparse.ArgumentParser()
    add_router_flags(parser)
    parser.set_defaults(api_key="sl-environment")  # what the environment makes of its variables

    environment = router_address(parser.parse_args(["--endpoint", "127.0.0.1:1"]))
    filed = router_address(parser.parse_args(["--endpoint", "127.0.0.1:1", "--api-key-file", str(tmp_path / "key")]))

    assert (environment.api_key, filed.api_key) == ("sl-environment", "sl-filed")


def test_any_flag_of_tls_means_tls() -> None:
    here = ("--endpoint", "127.0.0.1:1")

    assert router_address(arguments(*here)).tls is None
    assert router_address(arguments(*here, "--tls")).tls == TlsOptions()
    assert router_address(arguments(*here, "--tls-ca", "a")).tls == TlsOptions(ca="a")
    assert router_address(arguments(*here, "--tls-server-name", "n")).tls == TlsOptions(server_name="n")
    assert router_address(arguments(*here, "--tls-cert", "c", "--tls-key", "k")).tls == TlsOptions(cert="c", key="k")
    with pytest.raises(InvalidArgumentError, match="without its key"):
        router_address(arguments(*here, "--tls-cert", "c"))


def test_a_key_in_plain_text_over_the_network_is_warned_of_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    key = ("--api-key", "sl-secret")
    router_address(arguments("--endpoint", "127.0.0.1:1", "--endpoint", "[::1]:1", "--endpoint", "unix:/s", *key))
    router_address(arguments("--endpoint", "far:1", *key, "--tls"))
    router_address(arguments("--endpoint", "far:1"))

    assert capsys.readouterr().err == ""

    router_address(arguments("--endpoint", "far:1", "--endpoint", "localhost:1", *key))

    told = capsys.readouterr().err
    assert "travels to far:1 in plain text" in told
    assert "sl-secret" not in told
