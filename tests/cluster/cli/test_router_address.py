"""How a command finds the routers."""

import argparse
import os
import time

import pytest

from shardline_cluster.cli.router_address import NoRouterError, add_router_flags, connect, router_addresses
from shardline_cluster.cli.run_file import NotRunningError, RunFile, write_run_file
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

    assert list(router_addresses(arguments())) == ["of-the-file:1", "of-the-file:2"]
    assert list(router_addresses(arguments("--endpoint", "a:1", "--endpoint", "b:2"))) == ["a:1", "b:2"]


def test_neither_is_an_error() -> None:
    with pytest.raises(NotRunningError, match="no server named 'other'"):
        router_addresses(arguments("--name", "other"))


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
