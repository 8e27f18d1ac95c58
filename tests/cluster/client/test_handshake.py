"""Why a connection was not made: in gRPC's own words, and found out by a connection of our own."""

from pathlib import Path

import pytest

from shardline.handshake import hung_up, probed_reason, told_reason
from shardline.tls_options import TlsOptions
from tests.certificates import Authority
from tests.cluster.client.conftest import StartRouter
from tests.cluster.client.dead_sockets import RudeListener, unused_address

FAILED = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "
SSL = FAILED + "Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:"


@pytest.mark.parametrize(
    ("details", "told"),
    [
        (SSL + "OPENSSL_internal:WRONG_VERSION_NUMBER: Invalid certificate verification context", "speaks plain text"),
        (SSL + "OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate", "does not trust"),
        (SSL + "OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: self signed certificate in chain", "does not trust"),
        (SSL + "OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: certificate has expired: OK", "has expired"),
        (SSL + "OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: certificate is not yet valid", "compare the clocks"),
        (SSL + "OPENSSL_internal:UNSUPPORTED_PROTOCOL", "do not agree on TLS"),
        (FAILED + "Custom verification check failed with error: Hostname Verification Check failed.", "another name"),
        (FAILED + "Failed to create security handshaker.", "must be PEM"),
    ],
)
def test_grpc_tells_most_reasons(details: str, told: str) -> None:
    assert told in told_reason(details)


@pytest.mark.parametrize(
    "details",
    [
        FAILED + "Failed to connect to remote host: Connection refused",
        FAILED + "Socket closed",
        FAILED + "Handshake read failed (recvmsg:Connection reset by peer (104))",
        "the router says that a certificate has expired",  # of its own accord, over a connection that was made
    ],
)
def test_what_may_mend_itself_is_no_reason(details: str) -> None:
    assert told_reason(details) == ""


def test_a_router_that_hung_up_said_no_word_on_a_new_connection() -> None:
    assert hung_up(FAILED + "Socket closed")
    assert hung_up(FAILED + "Handshake read failed (recvmsg:Connection reset by peer (104))")
    assert not hung_up(FAILED + "Failed to connect to remote host: Connection refused")
    assert not hung_up("Socket closed")


def test_a_router_that_is_well_gone_or_rude_has_nothing_to_do_with_tls(
    start_router: StartRouter, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    tls = TlsOptions(ca=authority.file)
    plain, secure = start_router(), start_router(credentials=authority.server_credentials(authority.pair()))

    with RudeListener() as rude:
        found = [
            probed_reason(address, options)
            for address, options in (
                (plain.address, None),
                (secure.address, tls),
                (rude.address, None),
                (rude.address, tls),
                (unused_address(), None),
                (f"unix:{tmp_path}/gone", tls),
            )
        ]

    assert found == [""] * 6
