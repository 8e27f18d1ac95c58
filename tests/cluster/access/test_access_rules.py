"""An operator who opens a host says how strangers are kept out."""

from typing import Any

import pytest

from shardline_cluster.access.access_rules import AccessRules
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.json_encoding import from_json, to_json
from tests.cluster.access.known_keys import a_key, a_secret

OPEN_HOSTS = ["0.0.0.0", "::", "192.168.1.2", "router.example"]
CONSENT: list[dict[str, Any]] = [
    {"allow_unauthenticated": True},
    {"require_api_key": True},
    {"flag_keys": (a_key("a"),)},
    {"keys_file": "/etc/keys.jsonl"},
]


@pytest.mark.parametrize("host", OPEN_HOSTS)
def test_a_host_that_others_reach_is_refused_with_all_remedies(host: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        AccessRules().check_host(host)

    told = str(raised.value)
    assert told.startswith(f"--host {host} can be reached by other machines")
    remedies = ("--api-key", "--api-keys-file", "--require-api-key", "127.0.0.1", "--allow-unauthenticated")
    assert all(remedy in told for remedy in remedies)


@pytest.mark.parametrize("rules", CONSENT)
@pytest.mark.parametrize("host", OPEN_HOSTS)
def test_with_keys_or_with_a_word_of_consent_it_is_not(host: str, rules: dict[str, Any]) -> None:
    AccessRules(**rules).check_host(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_this_machine_needs_none(host: str) -> None:
    AccessRules().check_host(host)


def test_rules_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="leave one of them out"):
        AccessRules(allow_unauthenticated=True, require_api_key=True)


def test_they_travel_as_json_without_any_secret() -> None:
    rules = AccessRules(flag_keys=(a_key("a"),), keys_file="/k")

    text = to_json(rules)

    assert from_json(AccessRules, text) == rules
    assert a_secret("a") not in text
