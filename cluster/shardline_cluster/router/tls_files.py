"""The PEM files with which routers speak TLS, and whether they will do. Knows Python's `ssl` only, no gRPC."""

import binascii
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from shardline_cluster.errors import ConfigurationError

# Keys that OpenSSL takes and gRPC's TLS does not, so that no client would ever get in; by their identifiers in DER.
_UNKNOWN_TO_GRPC = (
    (bytes.fromhex("06032b6570"), "Ed25519"),
    (bytes.fromhex("06032b6571"), "Ed448"),
    (bytes.fromhex("06052b81040023"), "the curve P-521"),
    (bytes.fromhex("06052b8104000a"), "the curve secp256k1"),
)
_KEY_BLOCK = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)-----END", re.DOTALL)

Signature = tuple[tuple[int, int, int], ...]  # changes whenever one of the files does, or who may read it


class CertificateError(ConfigurationError):
    """A certificate, a key or a CA file is missing, unreadable, out of date, or does not fit its other."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the files held when they were looked at: everything that a server needs, proved to work."""

    cert: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    names: tuple[str, ...]  # for which the certificate is
    valid_until: float  # seconds since 1970

    @property
    def told(self) -> str:
        """In words for operators."""
        until = time.strftime("%Y-%m-%d", time.gmtime(self.valid_until))
        clients = "" if self.client_ca is None else ", for clients with a certificate of the given CA"
        return f"TLS with a certificate for {', '.join(self.names) or 'no name'} until {until}{clients}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Paths of PEM files."""

    cert: str  # the servers' certificate first, then what leads to its CA
    key: str  # of the certificate, without a passphrase
    client_ca: str | None = None  # only clients with a certificate of these CAs get in; None: everybody does

    def signature(self) -> Signature:
        """Where, how large and how long unchanged the files are.

        Raises:
            CertificateError: one of them is missing.
        """
        return tuple(_stamp(Path(file)) for file in (self.cert, self.key, self.client_ca) if file is not None)

    def load(self) -> Certificates:
        """Reads them and has a client shake hands with a server that uses them, in memory.

        Raises:
            CertificateError: a file is missing or unreadable, they do not fit each other, or the certificate is not
                valid now. The message names the file and says what is wrong.
        """
        before = self.signature()
        shown = _shown_to_client(self._server_context(), self._trusting_context(), self.cert)
        loaded = Certificates(
            cert=Path(self.cert).read_bytes(),
            key=Path(self.key).read_bytes(),
            client_ca=None if self.client_ca is None else Path(self.client_ca).read_bytes(),
            names=tuple(value for _, value in shown.get("subjectAltName", ())),
            valid_until=ssl.cert_time_to_seconds(shown["notAfter"]),
        )
        _check_kind(loaded.key, self.key)
        if self.signature() != before:
            raise CertificateError(f"the files of {self.cert} are just being replaced: they are read again")
        return loaded

    def _server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        what = f"the certificate {self.cert} with the key {self.key}"
        _use(what, lambda: context.load_cert_chain(self.cert, self.key, password=self._refuse_passphrase))
        if self.client_ca is not None:
            _use(f"the clients' CA file {self.client_ca}", lambda: context.load_verify_locations(str(self.client_ca)))
        return context

    def _trusting_context(self) -> ssl.SSLContext:
        """A client that trusts just this certificate: whose it is plays no part, only whether it is valid."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        _use(f"the certificate {self.cert}", lambda: context.load_verify_locations(self.cert))
        return context

    def _refuse_passphrase(self) -> NoReturn:
        raise CertificateError(f"the key {self.key} has a passphrase, which nobody is here to give: take one without")


def _check_kind(key: bytes, file: str) -> None:
    block = _KEY_BLOCK.search(key)
    der = binascii.a2b_base64(block[1]) if block else b""
    kind = next((name for identifier, name in _UNKNOWN_TO_GRPC if identifier in der), None)
    if kind is not None:
        raise CertificateError(f"the key {file} is of {kind}, which gRPC does not use: take RSA, P-256 or P-384")


def _stamp(file: Path) -> tuple[int, int, int]:
    try:
        status = file.stat()
    except OSError as error:
        raise CertificateError(f"cannot read {file}: {error.strerror}") from None
    return status.st_ino, status.st_size, status.st_ctime_ns


def _use(what: str, load: Callable[[], None]) -> None:
    try:
        load()
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).lower().replace("_", " ")
        raise CertificateError(
            f"{what} cannot be used ({reason}): it must be PEM, and a key be that of its certificate"
        ) from None
    except OSError as error:
        raise CertificateError(f"{what} cannot be read: {error.strerror}") from None


def _shown_to_client(server: ssl.SSLContext, client: ssl.SSLContext, file: str) -> dict[str, Any]:
    """The certificate as a client decodes it that has made a connection."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    asking = client.wrap_bio(to_client, to_server)
    try:
        for _ in range(4):  # the turns that a handshake takes
            for side in (asking, serving):
                _go_on(side)
    except ssl.SSLCertVerificationError as error:
        raise CertificateError(f"the certificate {file} is not valid now: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise CertificateError(f"the certificate {file} does not make a connection: {error}") from None
    shown = asking.getpeercert()
    assert shown, "a client that asks for a certificate has one after the handshake"
    return shown


def _go_on(side: ssl.SSLObject) -> None:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return
