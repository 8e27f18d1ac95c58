"""A router's configuration is checked at birth and travels as JSON."""

from typing import Any

import pytest

from shardline_cluster.access.access_rules import AccessRules
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.json_encoding import from_json, to_json
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.router_config import RouterConfig


def _config(**changes: Any) -> RouterConfig:
    fields: dict[str, Any] = {"redis_url": "unix:///x", "terms": QueueTerms(), "cache_folder": "/c"}
    return RouterConfig(**(fields | changes))


def test_it_comes_back_equal_through_json() -> None:
    config = _config(port=0, reuse_port=True, terms=QueueTerms.short(), access=AccessRules(require_api_key=True))

    assert from_json(RouterConfig, to_json(config)) == config


def test_a_host_that_others_reach_needs_a_word_of_consent() -> None:
    with pytest.raises(ConfigurationError, match="--allow-unauthenticated"):
        _config(host="0.0.0.0")

    assert _config(host="0.0.0.0", access=AccessRules(allow_unauthenticated=True)).host == "0.0.0.0"


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "127.0.0.1:7"), ("127.3.2.1", "127.3.2.1:7"), ("::1", "[::1]:7"), ("localhost", "localhost:7")],
)
def test_loopback_needs_none(host: str, address: str) -> None:
    assert _config(host=host, port=7).address == address


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(ConfigurationError, match=f"port is {port}"):
        _config(port=port)
