"""What stands in a keys file, and how a wrong line is told: file, line, field, bound, and never the key."""

import json

import pytest

from shardline_cluster.access.api_key import KeyLimits, Scope
from shardline_cluster.access.key_secret import digest_of
from shardline_cluster.access.keys_file import holds_secrets, parse_keys_file
from shardline_cluster.errors import ConfigurationError

SECRET = "open-sesame-open-sesame"


def test_a_line_can_say_everything_about_a_key() -> None:
    text = _line(
        id="a.1",
        tenant="team-a",
        scopes=["generate", "admin"],
        label="of the site",
        requests_per_minute=60,
        tokens_per_minute=100_000,
        expires="2027-01-15T08:00:00Z",
    )

    (key,) = parse_keys_file(text, "keys.jsonl")

    assert (key.id, key.digest, key.tenant, key.label) == ("a.1", digest_of(SECRET), "team-a", "of the site")
    assert key.scopes == frozenset(Scope)
    assert key.limits == KeyLimits(requests_per_minute=60, tokens_per_minute=100_000)
    assert key.expires_ms == 1_800_000_000_000


def test_what_is_left_out_has_defaults_and_lines_for_people_are_skipped() -> None:
    text = f'# of the team\n\n   \n{{"id": "a", "sha256": "{digest_of(SECRET).upper()}"}}\n'

    (key,) = parse_keys_file(text, "keys.jsonl")

    assert (key.digest, key.tenant, key.scopes) == (digest_of(SECRET), "default", frozenset({Scope.GENERATE}))
    assert (key.limits, key.label, key.expires_ms) == (KeyLimits(), "", None)


def test_an_empty_file_holds_no_keys() -> None:
    assert parse_keys_file("", "keys.jsonl") == ()


def _line(**changes: object) -> str:
    entry = {"id": "a", "key": SECRET} | changes
    return json.dumps({field: value for field, value in entry.items() if value is not None})


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: this is no JSON (Expecting property name enclosed in double quotes at column 2)"),
        ("[]", "line 2: this is no object"),
        ('{"id": ' + "[" * 100_000, "line 2: "),
        ('{"id": "a", "id": "b"}', "line 2: a field stands there twice"),
        (_line(id=None), "line 2: id is ''"),
        (_line(id="a b"), "line 2: id is 'a b': must have 1 to 64 characters"),
        (_line(id=7), "line 2: id must be a text in quotes"),
        (_line(key=None), "line 2: exactly one of key and sha256"),
        (_line(sha256="00"), "line 2: exactly one of key and sha256"),
        (_line(key=None, sha256="00"), "line 2: sha256 must be the SHA-256 of a key in 64 hexadecimal digits"),
        (_line(key="sesame"), "line 2: key has 6 characters, but a key must have 16"),
        (_line(tenant="../../x"), "line 2: tenant is '../../x'"),
        (_line(tenant="t" * 65), "line 2: tenant is"),
        (_line(scopes="admin"), "line 2: scopes must be a list of texts"),
        (_line(scopes=["admin", 1]), "line 2: scopes must be a list of texts"),
        (_line(scopes=["root"]), "line 2: scopes holds 'root': the scopes are generate and admin"),
        (_line(requests_per_minute=0), "line 2: requests_per_minute is 0: must be 1 to"),
        (_line(requests_per_minute=True), "line 2: requests_per_minute must be a whole number"),
        (_line(tokens_per_minute=1.5), "line 2: tokens_per_minute must be a whole number"),
        (_line(label="a\tb"), "line 2: label is 'a\\tb'"),
        (_line(label="x" * 201), "line 2: label has 201 characters"),
        (_line(expires="2027-01-31"), "line 2: expires is '2027-01-31', but must be an instant with its zone"),
        (_line(expires="soon"), "line 2: expires is 'soon'"),
        (_line(secret=SECRET), "line 2: 'secret' is no field of a key; there are: id, key, sha256"),
    ],
)
def test_a_wrong_line_is_told_by_number_and_field(line: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_keys_file(f"# first\n{line}\n", "keys.jsonl")

    assert f"keys.jsonl, {told}" in str(raised.value)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (_line(key="another-key-another-key"), "line 2: id is that of line 1 already"),
        (_line(id="b"), "line 2: key is that of line 1 already"),
    ],
)
def test_two_lines_are_two_keys(second: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as raised:
        parse_keys_file(f"{_line()}\n{second}\n", "keys.jsonl")

    assert SECRET not in str(raised.value)


def test_a_file_of_digests_tells_nobody_a_key() -> None:
    assert holds_secrets(_line())
    assert not holds_secrets(_line(key=None, sha256=digest_of(SECRET)))
