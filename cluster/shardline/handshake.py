"""Why client and router do not come to terms on TLS: from what gRPC says, else from a connection of our own.

gRPC tells most of it in the text of an error. A router that does not like what it hears hangs up without a word; so
does one that is being killed, and only a try with Python's own TLS tells these two apart.
"""

import socket
import ssl
from collections.abc import Callable

from shardline.tls_options import TlsOptions

PROBE_TIMEOUT_S = 2.0

_SPEAKS_PLAIN_TEXT = "it speaks plain text there, and this client TLS: leave TLS out, or name the port that has it"
_SPEAKS_TLS = "it speaks TLS there, and this client plain text: turn TLS on, with the CA of the router's certificate"
_WANTS_CERTIFICATE = "it wants a client's certificate, and this client shows none: name one with its key"
_DISLIKES_CERTIFICATE = "it does not take this client's certificate: name one of a CA that the router trusts"
# Words of gRPC's and BoringSSL's, in lower case, the more exact first.
_TOLD = (
    ("wrong_version_number", _SPEAKS_PLAIN_TEXT),
    ("certificate has expired", "the router's certificate has expired: it needs a new one"),
    ("certificate is not yet valid", "the router's certificate is not valid yet: compare the clocks"),
    (
        "certificate_verify_failed",
        "the router's certificate comes from a CA that this client does not trust: name the right CA file",
    ),
    (
        "hostname verification",
        "the router's certificate is for another name than its address: say which name it must have (server name)",
    ),
    (
        "failed to create security handshaker",
        "gRPC takes neither CA file nor certificate as they are: both must be PEM",
    ),
    ("ssl_error_ssl", "the two do not agree on TLS"),
)
_HUNG_UP = ("socket closed", "connection reset", "broken pipe")


def told_reason(details: str) -> str:
    """Why a connection could not be made, by gRPC's own text; empty: TLS has nothing to do with it, or may not."""
    text = details.lower()
    return next((reason for words, reason in _TOLD if words in text and "failed to connect" in text), "")


def hung_up(details: str) -> bool:
    """Whether a router let the connection be made and closed it before it said a word."""
    text = details.lower()
    return "failed to connect" in text and any(words in text for words in _HUNG_UP)


def probed_reason(address: str, tls: TlsOptions | None) -> str:
    """Why a router hangs up on a client that speaks this TLS, or none; empty: nothing that TLS explains.

    Connects to `address`, and takes `PROBE_TIMEOUT_S` for each step at most.
    """
    if tls is None:
        return _SPEAKS_TLS if _said_over_tls(address, TlsOptions(), lambda _: True) else ""
    if not _said_over_tls(address, tls, _closes_at_once):
        return ""
    return _WANTS_CERTIFICATE if tls.cert is None else _DISLIKES_CERTIFICATE


def _said_over_tls(address: str, tls: TlsOptions, heard: Callable[[ssl.SSLSocket], bool]) -> bool:
    """Whether there is TLS at all, and what it `heard` then. Whom the certificate names plays no part."""
    context = tls.context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with _connected(address) as plain, context.wrap_socket(plain) as secured:
            return heard(secured)
    except OSError:
        return False


def _closes_at_once(secured: ssl.SSLSocket) -> bool:
    """With TLS 1.3 a server looks at the client's certificate once the client thinks that all is well."""
    try:
        return not secured.recv(1)
    except (ssl.SSLError, ConnectionError):  # an alert, for instance that a certificate is required
        return True


def _connected(address: str) -> socket.socket:
    if address.startswith("unix:"):
        return _connected_to_file(address.removeprefix("unix:"))
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_TIMEOUT_S)


def _connected_to_file(path: str) -> socket.socket:
    plain = socket.socket(socket.AF_UNIX)
    plain.settimeout(PROBE_TIMEOUT_S)
    try:
        plain.connect(path)
    except OSError:
        plain.close()
        raise
    return plain
