"""The flags that say where Redis is, of every command that talks to it."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shardline_cluster.queue.redis_tls import with_tls_files


def add_redis_flags(group: Any, *, otherwise: str) -> None:
    """Adds them; `otherwise` says what counts where neither --redis-url nor REDIS_URL is given."""
    group.add_argument(
        "--redis-url",
        metavar="URL",
        help="a Redis or Valkey server: redis://USER:PASSWORD@HOST:PORT/DB, rediss:// for TLS, or unix:///PATH; a "
        f"password is better in SHARDLINE_REDIS_URL (else REDIS_URL, else {otherwise})",
    )
    group.add_argument("--redis-tls-ca", metavar="FILE", help="trust the CA certificates in FILE (PEM) with rediss://")
    group.add_argument("--redis-tls-cert", metavar="FILE", help="show this certificate to a Redis that asks for one")
    group.add_argument("--redis-tls-key", metavar="FILE", help="the key of --redis-tls-cert")


def redis_url(arguments: argparse.Namespace, environment: Mapping[str, str]) -> str | None:
    """The URL with the files of TLS in it; None: no Redis was named.

    Raises:
        ConfigurationError: the files do not fit the URL, or each other.
    """
    url = arguments.redis_url or environment.get("REDIS_URL")
    if not url:
        return None
    return with_tls_files(
        url,
        ca=_absolute(arguments.redis_tls_ca),
        cert=_absolute(arguments.redis_tls_cert),
        key=_absolute(arguments.redis_tls_key),
    )


def _absolute(file: str | None) -> str | None:
    """Replicas may work in other folders."""
    return str(Path(file).expanduser().absolute()) if file else None
