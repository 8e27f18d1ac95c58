"""TLS as a client speaks it: whom it trusts, and what it shows of itself."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import grpc

from shardline.errors import InvalidArgumentError


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """Paths of PEM files, read when a client is made. `TlsOptions()` trusts whom this system trusts."""

    ca: str | Path | None = None  # certificates to trust; None: those of the system
    cert: str | Path | None = None  # this client's own, with what leads to its CA: where routers ask for one
    key: str | Path | None = None  # of `cert`, without a passphrase
    server_name: str | None = None  # the name in the routers' certificate; None: the host of their address

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            given, missing = ("key", "certificate") if self.cert is None else ("certificate", "key")
            raise InvalidArgumentError(f"a client's {given} was given without its {missing}: give both, or neither")

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """What a channel is opened with.

        Raises:
            InvalidArgumentError: a file is missing, cannot be read, holds something else, or does not fit its other.
        """
        self.context()  # gRPC itself would only fail at the first connection, and not say why
        return grpc.ssl_channel_credentials(
            root_certificates=_system_roots() if self.ca is None else Path(self.ca).read_bytes(),
            private_key=None if self.key is None else Path(self.key).read_bytes(),
            certificate_chain=None if self.cert is None else Path(self.cert).read_bytes(),
        )

    def context(self) -> ssl.SSLContext:
        """The same for Python's own TLS, but for the system's CAs. Raises as `channel_credentials`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca is not None:
            _load(f"the CA file {self.ca}", lambda: context.load_verify_locations(str(self.ca)))
        if self.cert is not None:
            what = f"the client's certificate {self.cert} with the key {self.key}"
            _load(what, lambda: context.load_cert_chain(str(self.cert), str(self.key), password=_refuse_passphrase))
        return context


def _load(what: str, load: Callable[[], None]) -> None:
    try:
        load()
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).lower().replace("_", " ")
        raise InvalidArgumentError(
            f"{what} cannot be used ({reason}): it must be PEM, and a key fit its certificate"
        ) from None
    except OSError as error:
        raise InvalidArgumentError(f"{what} cannot be read: {error.strerror}") from error


def _refuse_passphrase() -> NoReturn:
    raise InvalidArgumentError("the key of the client's certificate has a passphrase: take one without")


def _system_roots() -> bytes | None:
    """None: those that gRPC brings along."""
    file = ssl.get_default_verify_paths().cafile
    return None if file is None else Path(file).read_bytes()
