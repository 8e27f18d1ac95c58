"""Finds ports, and keeps one for several routers that share it."""

import errno
import socket
from dataclasses import dataclass

from shardline_cluster.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ListenFlags:
    """The flags that errors name."""

    host: str = "--host"
    port: str = "--grpc-port"


GRPC_FLAGS = ListenFlags()
METRICS_FLAGS = ListenFlags("--metrics-host", "--metrics-port")


def check_can_listen(host: str, port: int, flags: ListenFlags) -> None:
    """Tries whether something could listen there now; 0 is any port.

    Raises:
        ConfigurationError: the port is taken, or the host is not one of this machine's.
    """
    with _socket(host) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port whose connections only linger is free
        _bind(probe, host, port, flags)


def reserve_shared_port(host: str, port: int) -> socket.socket:
    """Binds, without listening, a port that routers can bind beside it (SO_REUSEPORT); 0 takes any.

    As long as the socket is open nobody else's server gets the port; clients never reach a socket that does not listen.

    Raises:
        ConfigurationError: the port is taken, or the host is not one of this machine's.
    """
    if port:  # another program with SO_REUSEPORT on this port would share it, and get half of the clients
        check_can_listen(host, port, GRPC_FLAGS)
    reserved = _socket(host)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _bind(reserved, host, port)
    return reserved


def port_of(reserved: socket.socket) -> int:
    """The number of a bound socket's port."""
    number: int = reserved.getsockname()[1]
    return number


def free_port(host: str) -> int:
    """A port of `host` that was free a moment ago."""
    with _socket(host) as probe:
        _bind(probe, host, 0)
        return port_of(probe)


def is_own_address(host: str) -> bool:
    """Whether this machine has this address: on macOS, say, only 127.0.0.1 of the loopback addresses is up."""
    try:
        free_port(host)
    except ConfigurationError:
        return False
    return True


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)


def _bind(unbound: socket.socket, host: str, port: int, flags: ListenFlags = GRPC_FLAGS) -> None:
    try:
        unbound.bind((host, port))
    except OSError as error:
        unbound.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"port {port} of {host} is taken by another program: stop it, or choose another {flags.port} "
                "(0 takes any that is free)"
            ) from None
        if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
            raise ConfigurationError(
                f"{flags.host} {host} is no address of this machine ({error.strerror}): take one that it has, or "
                "127.0.0.1 for this machine alone"
            ) from error
        raise ConfigurationError(
            f"cannot listen on {host}:{port} ({error.strerror}): choose another {flags.port} (0 takes any that is free)"
        ) from error
