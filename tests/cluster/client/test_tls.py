"""Both clients over TLS, with a key, against a router that serves a script."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from shardline import AsyncClient, Client, TlsOptions
from shardline.errors import InvalidArgumentError, TlsError
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


REFUSED = (
    ("plain text", None, "it speaks TLS there, and this client plain text"),
    ("of another CA", "other", "comes from a CA that this client does not trust"),
    ("another name", "name", "is for another name than its address"),
)


@pytest.mark.parametrize(("_case", "kind", "told"), REFUSED)
async def test_a_router_that_speaks_another_tls_is_told_at_once_and_why(
    start_router: StartRouter, authority: Authority, _case: str, kind: str | None, told: str
) -> None:
    address = start_router(credentials=authority.server_credentials(authority.pair())).address
    other = Authority(authority.file.parent, "other")
    tls: TlsOptions | bool = False
    if kind is not None:
        tls = TlsOptions(ca=other.file if kind == "other" else authority.file, server_name=f"{kind}.example")

    await _is_refused_everywhere(address, tls, told)


@pytest.mark.parametrize("shows", ["nothing", "a stranger's"])
async def test_a_router_that_wants_another_certificate_is_told(
    start_router: StartRouter, authority: Authority, shows: str
) -> None:
    address = start_router(credentials=authority.server_credentials(authority.pair(), ask_clients=True)).address
    stranger = Authority(authority.file.parent, "stranger").pair()
    tls, told = TlsOptions(ca=authority.file, server_name=ROUTER_NAME), "it wants a client's certificate"
    if shows != "nothing":
        tls, told = replace(tls, cert=stranger.cert, key=stranger.key), "it does not take this client's certificate"

    await _is_refused_everywhere(address, tls, told)


async def test_tls_to_a_plain_router_and_an_expired_certificate_are_told(
    start_router: StartRouter, authority: Authority
) -> None:
    expired = authority.server_credentials(authority.pair(expired=True))
    tls = TlsOptions(ca=authority.file, server_name=ROUTER_NAME)

    await _is_refused_everywhere(start_router().address, tls, "it speaks plain text there, and this client TLS")
    await _is_refused_everywhere(start_router(credentials=expired).address, tls, "certificate has expired")


async def _is_refused_everywhere(address: str, tls: TlsOptions | bool, told: str) -> None:
    """By streams, calls and health of both clients, in the first second or so of their patience."""
    async with AsyncClient(address, tls=tls, patience_s=3600) as client:
        with pytest.raises(TlsError, match=told):
            await client.generate("Hi")
        with pytest.raises(TlsError, match=told):
            await client.models()
        assert told in (await client.health())[0].reason
    with Client(address, tls=tls, patience_s=3600) as plain:
        with pytest.raises(TlsError, match=told):
            await asyncio.to_thread(plain.generate, "Hi")
        with pytest.raises(TlsError, match=told):
            await asyncio.to_thread(plain.models)
        assert (await asyncio.to_thread(plain.health))[0].status == "REJECTED"


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
