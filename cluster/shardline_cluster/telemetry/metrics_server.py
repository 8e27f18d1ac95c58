"""Serves `/metrics`, `/health` and further pages of one process over HTTP, from a thread of its own.

The thread answers while the process's event loop hangs: that is when somebody asks. So nothing here may wait for a
loop, and what a page tells must be readable from any thread.
"""

import errno
import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.telemetry.telemetry_config import TelemetryConfig

CLIENT_LIMIT_S = 5.0  # a client that is silent for longer is hung up on

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Health:
    """How a process is. `failing` says why it is not well; empty: it is."""

    failing: str = ""
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """As HTTP has it."""
        return 503 if self.failing else 200

    def page(self) -> bytes:
        """As JSON."""
        word = "failing" if self.failing else "ok"
        told = {"status": word, **({"reason": self.failing} if self.failing else {}), **self.details}
        return json.dumps(told).encode() + b"\n"


class MetricsServer:
    """One process's exporter. `start`, then `close`."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        health: Callable[[], Health],
        pages: Mapping[str, Callable[[], str]] | None = None,
    ) -> None:
        """`pages` are further paths, each with what makes its JSON."""
        self._registry = registry
        self._health = health
        self._pages = dict(pages or {})
        self._server: ThreadingHTTPServer | None = None

    def start(self, config: TelemetryConfig) -> str:
        """Listens; returns `host:port` as others reach it. A port that is taken is no reason not to serve models: any
        free one is taken in its place, and the log says so.

        Raises:
            ConfigurationError: this machine has no such address.
        """
        try:
            server = self._listen(config.metrics_host, config.metrics_port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ConfigurationError(
                    f"cannot serve metrics on {config.metrics_host}, port {config.metrics_port}: {error.strerror}; "
                    "name an address of this machine with --metrics-host"
                ) from error
            log.warning(
                "cannot serve metrics on %s:%d (%s): any free port is taken instead",
                config.metrics_host,
                config.metrics_port,
                error.strerror,
            )
            server = self._listen(config.metrics_host, 0)
        self._server = server
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
        return host_and_port(config.told_host, server.server_address[1])

    def close(self) -> None:
        """Listens no more, from half a second after this returns: the thread that serves looks up as seldom."""
        if self._server is not None:
            threading.Thread(target=_end, args=(self._server,), name="metrics-end", daemon=True).start()
            self._server = None

    def answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
        """Status, content type and body of a page."""
        if path == "/metrics":
            encode, content_type = choose_encoder(accept)
            return 200, content_type, encode(self._registry)
        if path == "/health":
            health = self._health()
            return health.status, "application/json", health.page()
        if path in self._pages:
            return 200, "application/json", self._pages[path]().encode()
        known = ", ".join(["/metrics", "/health", *self._pages])
        return 404, "text/plain; charset=utf-8", f"there is no page {path[:200]}; there are {known}\n".encode()

    def _listen(self, host: str, port: int) -> ThreadingHTTPServer:
        kind = _SixServer if ":" in host else _Server
        return kind((host, port), _handler(self))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Without the library's look for this host's name, for which a name server may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, _request: object, _client_address: object) -> None:
        """A client that hangs up in mid-answer is no news."""
        log.debug("a reader of metrics was not served to its end", exc_info=True)


class _SixServer(_Server):
    address_family = socket.AF_INET6


def _handler(server: MetricsServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers GET."""

        timeout = CLIENT_LIMIT_S

        def do_GET(self) -> None:
            """One page."""
            status, content_type, body = server.answer(urlsplit(self.path).path, self.headers.get("Accept", ""))
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
            """Says nothing: scrapers come every few seconds."""

    return Handler


def _end(server: ThreadingHTTPServer) -> None:
    server.shutdown()
    server.server_close()


def host_and_port(host: str, port: int) -> str:
    """An address as URLs write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
