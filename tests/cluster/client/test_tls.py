"""Both clients over TLS, with a key, against a router that serves a script."""

from pathlib import Path

import pytest

from shardline import AsyncClient, Client, TlsOptions
from shardline.errors import InvalidArgumentError
from tests.certificates import ROUTER_NAME, Authority
from tests.cluster.client.conftest import StartRouter


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_both_clients_speak_tls_and_show_key_and_certificate(
    start_router: StartRouter, authority: Authority
) -> None:
    router = start_router(credentials=authority.server_credentials(authority.pair(), ask_clients=True))
    own = authority.pair("client.example")
    tls = TlsOptions(ca=authority.file, cert=own.cert, key=own.key, server_name=ROUTER_NAME)

    async with AsyncClient(router.address, api_key="sl-one", tls=tls) as client:
        await client.generate("Hi")
        await client.models()
    with Client(router.address, api_key="sl-one", tls=tls) as plain:
        plain.generate("Hi")
        plain.models()
        assert plain.health()[0].serving

    assert {metadata["authorization"] for metadata in router.metadata} == {"Bearer sl-one"}
    assert (router.methods.count("Generate"), router.methods.count("ListModels")) == (2, 2)


def test_a_key_travels_over_plain_text_too(start_router: StartRouter) -> None:
    router = start_router()

    with Client(router.address, api_key="sl-one") as client:
        client.models()

    assert router.metadata[0]["authorization"] == "Bearer sl-one"


def test_the_cas_of_the_system_are_trusted_where_none_is_named(
    start_router: StartRouter, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = start_router(credentials=authority.server_credentials(authority.pair("localhost")))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))

    with Client(router.address.replace("127.0.0.1", "localhost"), tls=True) as client:
        assert client.models()[0].name == "scripted"


def test_files_that_will_not_do_are_told_before_anything_is_sent(authority: Authority, tmp_path: Path) -> None:
    one, other, empty = authority.pair(), authority.pair(), tmp_path / "empty.pem"
    empty.touch()

    for options, told in (
        ({"ca": tmp_path / "gone.pem"}, r"the CA file .*gone\.pem cannot be read: No such file"),
        ({"ca": empty}, r"the CA file .*empty\.pem cannot be used \(no certificate or crl found\)"),
        ({"cert": one.cert, "key": other.key}, r"certificate .* cannot be used \(key values mismatch\)"),
        ({"cert": one.cert, "key": tmp_path / "gone.key"}, r"cannot be read: No such file"),
    ):
        with pytest.raises(InvalidArgumentError, match=told):
            Client("127.0.0.1:1", tls=TlsOptions(**options))  # type: ignore[arg-type]


def test_a_certificate_and_its_key_belong_together(authority: Authority) -> None:
    with pytest.raises(InvalidArgumentError, match="certificate was given without its key"):
        TlsOptions(cert=authority.pair().cert)
    with pytest.raises(InvalidArgumentError, match="key was given without its certificate"):
        TlsOptions(key=authority.pair().key)
