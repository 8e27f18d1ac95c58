"""Certificates that are replaced under a running server."""

import logging
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from shardline_cluster.router.server_credentials import CertificateWatch, server_credentials
from shardline_cluster.router.tls_files import CertificateError, TlsFiles
from tests.certificates import ROUTER_NAME, Authority, Pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_files_that_did_not_change_are_not_read_again(authority: Authority) -> None:
    pair = authority.pair()
    watch = CertificateWatch(TlsFiles(cert=str(pair.cert), key=str(pair.key)))

    unchanged = watch.changed()
    pair.replace_by(authority.pair("new.example"))
    changed = watch.changed()

    assert unchanged is None
    assert changed is not None
    assert changed.names == ("new.example",)
    assert watch.changed() is None


def test_a_bad_new_pair_leaves_the_old_one_and_is_told_once(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    pair, expired, new = authority.pair(), authority.pair(expired=True), authority.pair("new.example")
    watch = CertificateWatch(TlsFiles(cert=str(pair.cert), key=str(pair.key)))

    with caplog.at_level(logging.ERROR):
        pair.key.write_bytes(new.key.read_bytes())
        during = [watch.changed() for _ in range(3)]
        pair.replace_by(expired)
        during += [watch.changed() for _ in range(3)]
        pair.cert.unlink()
        during += [watch.changed() for _ in range(3)]

    assert during == [None] * 9
    told = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert [any(words in line for line in told) for words in ("mismatch", "has expired", "No such file")] == [True] * 3
    assert len(told) == 3

    pair.replace_by(new)
    mended = watch.changed()

    assert mended is not None
    assert mended.names == ("new.example",)


def test_a_server_is_not_made_of_files_that_will_not_do(authority: Authority) -> None:
    pair = authority.pair(expired=True)

    with pytest.raises(CertificateError, match="has expired"):
        server_credentials(TlsFiles(cert=str(pair.cert), key=str(pair.key)))


async def test_new_connections_see_the_new_certificate_and_open_ones_go_on(authority: Authority) -> None:
    pair, other = authority.pair(), Authority(authority.file.parent, "other")
    server = grpc.aio.server(handlers=[])
    port = server.add_secure_port("127.0.0.1:0", server_credentials(TlsFiles(cert=str(pair.cert), key=str(pair.key))))
    await server.start()

    async with _channel(port, authority) as early:
        before = await _answer(early)
        pair.replace_by(other.pair())
        async with _channel(port, other) as late, _channel(port, authority) as deceived:
            after = [await _answer(channel) for channel in (early, late, deceived)]
    await server.stop(None)

    served, refused = grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE
    assert (before, after) == (served, [served, served, refused])


async def test_a_new_ca_of_clients_counts_from_the_next_connection_on(authority: Authority) -> None:
    pair, clients = authority.pair(), Authority(authority.file.parent, "clients")
    files = TlsFiles(cert=str(pair.cert), key=str(pair.key), client_ca=str(authority.file.parent / "trusted.pem"))
    authority.copy_to(str(files.client_ca))
    server = grpc.aio.server(handlers=[])
    port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
    await server.start()

    answers = []
    for own in (authority, clients):
        own.copy_to(str(files.client_ca))
        for shown in (authority, clients):
            async with _channel(port, authority, shown.pair("client.example")) as channel:
                answers.append(await _answer(channel))
    await server.stop(None)

    served, refused = grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE
    assert answers == [served, refused, refused, served]


def _channel(port: int, authority: Authority, shown: Pair | None = None) -> grpc.aio.Channel:
    options = [("grpc.ssl_target_name_override", ROUTER_NAME), ("grpc.use_local_subchannel_pool", 1)]
    trusting = grpc.ssl_channel_credentials(authority.file.read_bytes(), *(shown.pem if shown else ()))
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", trusting, options=options)


async def _answer(channel: grpc.aio.Channel) -> grpc.StatusCode:
    """Of a server without services: UNIMPLEMENTED means that it was reached."""
    method: Any = channel.unary_unary("/no.Service/Method")
    code: grpc.StatusCode = await method(b"", timeout=10).code()
    return code
