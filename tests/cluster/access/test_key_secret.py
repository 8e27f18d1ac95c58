"""Keys cannot be guessed, only their digests are kept, and no message repeats one."""

import hashlib

import pytest

from shardline_cluster.access.key_secret import check_secret, digest_of, new_key_id, new_secret
from shardline_cluster.errors import ConfigurationError


def test_a_new_key_names_itself_and_is_long_and_never_the_same() -> None:
    key_id = new_key_id()

    secrets = {new_secret(key_id) for _ in range(100)}

    assert len(secrets) == 100
    assert all(secret.startswith(f"sl-{key_id}-") for secret in secrets)
    assert min(len(secret.removeprefix(f"sl-{key_id}-")) for secret in secrets) >= 43
    assert all(check_secret(secret, where="it") == secret for secret in secrets)


def test_ids_are_short_and_differ() -> None:
    ids = {new_key_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert {len(key_id) for key_id in ids} == {12}


def test_the_digest_is_that_of_the_whole_key_and_anything_at_all_has_one() -> None:
    assert digest_of("sl-a-b") == hashlib.sha256(b"sl-a-b").hexdigest()
    assert len(digest_of("\udcff")) == 64


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        ("sesame-15-chars", "has 15 characters, but a key must have 16 to 512"),
        ("sesame" * 100, "has 600 characters"),
        ("sesame sesame sesame", "holds a space"),
        ("sesame,sesame,sesame", "a comma"),
        ("sesame-sésame-sesame", "not printable ASCII"),
        ("sesame-sesame-sesame\n", "not printable ASCII"),
    ],
)
def test_a_key_that_will_not_do_is_refused_without_repeating_it(secret: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        check_secret(secret, where="--api-key")

    assert str(raised.value).startswith("--api-key ")
    assert told in str(raised.value)
    assert "openssl rand" in str(raised.value)
    assert "sesame" not in str(raised.value)
