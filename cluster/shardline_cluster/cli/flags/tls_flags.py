"""The flags of commands that start routers: with which certificate they speak TLS, and whose they want to see."""

import argparse
from pathlib import Path
from typing import Any

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.router.tls_files import TlsFiles


def add_tls_flags(group: Any) -> None:
    """Adds them."""
    group.add_argument(
        "--tls-cert",
        metavar="FILE",
        help="speak TLS with this certificate (PEM, followed by what leads to its CA); a file that is replaced is used "
        "from the next connection on",
    )
    group.add_argument("--tls-key", metavar="FILE", help="the key of --tls-cert, without a passphrase")
    group.add_argument(
        "--tls-client-ca", metavar="FILE", help="let in only clients with a certificate of these CAs (mutual TLS)"
    )


def tls_files(arguments: argparse.Namespace) -> TlsFiles | None:
    """What the flags say; None: plain text. The files are not looked at: `TlsFiles.load` does that.

    Raises:
        ConfigurationError: one of certificate and key is missing.
    """
    cert, key, client_ca = (
        str(Path(file).expanduser().absolute()) if file else None
        for file in (arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca)
    )
    if cert is not None and key is not None:
        return TlsFiles(cert=cert, key=key, client_ca=client_ca)
    given = [flag for flag, file in (("--tls-cert", cert), ("--tls-key", key), ("--tls-client-ca", client_ca)) if file]
    if given:
        raise ConfigurationError(f"{' and '.join(given)} alone is no TLS: give --tls-cert and --tls-key")
    return None
