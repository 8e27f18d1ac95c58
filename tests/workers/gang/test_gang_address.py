"""Where rank processes find their leader, and what proves that they belong there."""

import pytest

from shardline_workers.gang.gang_address import SECRET_VARIABLE, GangAddress

SECRET = bytes(range(32))
ENVIRONMENT = {SECRET_VARIABLE: SECRET.hex()}


@pytest.mark.parametrize("host", ["10.0.0.1", "node-7.local", "fe80::1"])
def test_an_address_is_read_as_it_is_written(host: str) -> None:
    address = GangAddress(host=host, port=4711, secret=SECRET)

    assert GangAddress.parse(str(address), address.environment()) == address


def test_the_secret_is_not_shown() -> None:
    address = GangAddress(host="h", port=1, secret=SECRET)

    assert "secret" not in repr(address) and SECRET.hex() not in repr(address)


@pytest.mark.parametrize("text", ["", "h", "h:", ":1", "h:0", "h:65536", "h:x", "h:²"])
def test_what_can_be_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the leader's address is .*it must be HOST:PORT"):
        GangAddress.parse(text, ENVIRONMENT)


@pytest.mark.parametrize("secret", ["", "ab", "zz" * 32, "ab" * 33])
def test_what_can_be_no_secret_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="must hold 64 hexadecimal digits") as refusal:
        GangAddress.parse("h:1", {SECRET_VARIABLE: secret})

    assert not secret or secret not in str(refusal.value)
