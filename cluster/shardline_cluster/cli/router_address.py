"""How a command finds the routers, and what it shows them: the flags of every command that is a client.

Where: `--endpoint`, else the run file of the server named `--name`. What: an API key, TLS and a certificate.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from shardline import Client, EndpointHealth, OnRetry, TlsOptions
from shardline.channels import RouterChannels, sync_channels
from shardline_cluster.access.loopback import is_loopback
from shardline_cluster.cli.retry_notices import RetryNotices
from shardline_cluster.cli.run_file import DEFAULT_NAME, read_run_file
from shardline_cluster.errors import ConfigurationError, ShardlineError

# A router on the way to its death may still accept connections; one that lives answers far sooner.
_FIRST_ANSWER_S = 5.0


class NoRouterError(ShardlineError):
    """No router answers at any address that the command knows."""

    code = "UNAVAILABLE"
    retryable = True


@dataclass(frozen=True, slots=True)
class RouterAddress:
    """Where the routers are, and what they are shown."""

    endpoints: tuple[str, ...]
    api_key: str | None = field(default=None, repr=False)
    tls: TlsOptions | None = None

    def client(self, *, on_retry: OnRetry | None = None) -> Client:
        """A client of these routers. Raises as `Client`."""
        return Client(self.endpoints, api_key=self.api_key, tls=self.tls or False, on_retry=on_retry)

    def channels(self) -> RouterChannels[grpc.Channel]:
        """Channels to these routers, for stubs of other services. Raises as `Client`."""
        return sync_channels(api_key=self.api_key, tls=self.tls or False)


class _FileGoesFirst(argparse.Action):
    """A file that the command line names goes before the key of the environment, as all of the line does.

    Whether the key came from the line is not to be seen: it is moved into the environment (`secret_arguments`).
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        namespace.api_key_file, namespace.api_key_file_goes_first = values, True


def add_router_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say where the routers are and what they are shown."""
    group = parser.add_argument_group("where the cluster is")
    group.add_argument(
        "--endpoint",
        action="append",
        metavar="HOST:PORT",
        help="address of a router, such as 127.0.0.1:50051; may be repeated: if one goes away, another takes over "
        "(default: where the server called --name listens)",
    )
    add_name_flag(group)
    _add_credential_flags(parser.add_argument_group("who asks, and whom it trusts"))


def add_name_flag(group: argparse._ArgumentGroup) -> None:
    """Adds the flag that names a server on this machine."""
    group.add_argument(
        "--name",
        default=DEFAULT_NAME,
        metavar="NAME",
        help="the server on this machine that `shardline serve --name NAME` started (default: %(default)r)",
    )


def _add_credential_flags(group: Any) -> None:
    group.add_argument("--api-key", metavar="KEY", help="the API key to show; better in SHARDLINE_API_KEY or a file")
    group.add_argument(
        "--api-key-file",
        action=_FileGoesFirst,
        metavar="FILE",
        help="a file that holds the API key and nothing else; it goes before SHARDLINE_API_KEY",
    )
    group.add_argument("--tls", action="store_true", help="speak TLS, and trust the CAs of this system")
    group.add_argument("--tls-ca", metavar="FILE", help="speak TLS, and trust the CA certificates in FILE (PEM)")
    group.add_argument("--tls-cert", metavar="FILE", help="speak TLS, and show this certificate where a router asks")
    group.add_argument("--tls-key", metavar="FILE", help="the key of --tls-cert")
    group.add_argument(
        "--tls-server-name",
        metavar="NAME",
        help="speak TLS, and expect this name in the routers' certificate (default: the host of the address)",
    )


def router_address(arguments: argparse.Namespace) -> RouterAddress:
    """What the flags say. Warns of a key that travels in the clear.

    Raises:
        ConfigurationError: no address is given and no server of this name runs here, or the key's file is unreadable.
        shardline.errors.InvalidArgumentError: a certificate was given without its key, or a key without it.
    """
    address = RouterAddress(_endpoints(arguments), _api_key(arguments), _tls(arguments))
    if address.api_key is not None and address.tls is None:
        _warn_of_plain_text(address.endpoints)
    return address


def connect(arguments: argparse.Namespace) -> Client:
    """A client of routers of which at least one answers now; it says on standard error when it has to reconnect.

    Raises as `answering_endpoint`.
    """
    address = router_address(arguments)
    answering_endpoint(address)
    return address.client(on_retry=RetryNotices())


def answering_endpoint(address: RouterAddress) -> str:
    """The first router that answers now.

    Raises:
        NoRouterError: none does. People at a terminal want to know at once, not when patience is over.
    """
    with address.client() as client:
        health = client.health(timeout_s=_FIRST_ANSWER_S)
    for entry in health:
        if entry.answers:
            return entry.endpoint
    raise NoRouterError(_why_none(health))


def _why_none(health: Sequence[EndpointHealth]) -> str:
    rejections = [entry.reason for entry in health if entry.status == "REJECTED"]
    if rejections:
        return "; ".join(rejections)
    tried = ", ".join(entry.endpoint for entry in health)
    return f"no router answers at {tried}: is `shardline serve` running there? (The last try: {health[-1].reason})"


def _endpoints(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Flags of TLS lead to the port that speaks it; else the server's own user needs none."""
    if arguments.endpoint:
        return tuple(arguments.endpoint)
    run_file = read_run_file(arguments.name)
    return run_file.endpoints if _tls(arguments) else run_file.local_endpoints or run_file.endpoints


def _api_key(arguments: argparse.Namespace) -> str | None:
    file_counts = arguments.api_key_file and (
        not arguments.api_key or getattr(arguments, "api_key_file_goes_first", False)
    )
    if not file_counts:
        return arguments.api_key or None
    try:
        return Path(arguments.api_key_file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(f"cannot read --api-key-file {arguments.api_key_file}: {reason}") from None


def _tls(arguments: argparse.Namespace) -> TlsOptions | None:
    options = TlsOptions(
        ca=arguments.tls_ca, cert=arguments.tls_cert, key=arguments.tls_key, server_name=arguments.tls_server_name
    )
    return options if arguments.tls or options != TlsOptions() else None


def _warn_of_plain_text(endpoints: Sequence[str]) -> None:
    open_to_all = [endpoint for endpoint in endpoints if not _stays_here(endpoint)]
    if open_to_all:
        print(
            f"shardline: the API key travels to {', '.join(open_to_all)} in plain text, for everybody on the way to "
            "read: use --tls or --tls-ca, or a tunnel",
            file=sys.stderr,
        )


def _stays_here(endpoint: str) -> bool:
    return endpoint.startswith("unix:") or is_loopback(endpoint.rpartition(":")[0].strip("[]"))
