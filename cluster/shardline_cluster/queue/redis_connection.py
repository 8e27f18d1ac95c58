"""Where a Redis server is, and a few connections to it. One call is one attempt: whoever calls decides what to resend.

Passwords stay inside `RedisAddress`: they appear in no message and in no representation.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlparse

from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shardline_cluster.errors import ConfigurationError, QueueUnavailableError
from shardline_cluster.queue.redis_tls import check_options, suspicion, told_reason

_QUOTING = (
    "its port must be a number, and special characters of user and password be written as %XX (/ as %2F, @ as %40, "
    "# as %23, : as %3A)"
)
SCHEMES = ("redis", "rediss", "unix")
# A server that answers with one of these did not run the call and may run it later.
_AWAY = (
    RedisConnectionError,  # a loading server and a wrong password too
    NoPermissionError,
    RedisTimeoutError,
    ReadOnlyError,
    ClusterDownError,
    MasterDownError,
    TryAgainError,
    AskError,
    MovedError,
    OSError,
)
_AWAY_CODES = ("MISCONF", "NOREPLICAS", "BUSY", "UNKILLABLE", "LOADING", "MASTERDOWN")
# How Redis and Valkey say NOPERM of a command inside a script.
_FORBIDDEN_IN_SCRIPT = ("The user executing the script can't", "ACL failure in script")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A server's address, taken from a URL."""

    shown: str  # without user name, password and options
    _url: str = field(repr=False)

    @property
    def form_with_password(self) -> str:
        """How a URL of this kind names a user, for messages."""
        if self.shown.startswith("unix:"):
            return "unix://USER:PASSWORD@/PATH/TO/SOCKET"
        return f"{self.shown.partition(':')[0]}://USER:PASSWORD@HOST:PORT/DB"

    @classmethod
    def parse(cls, url: str) -> "RedisAddress":
        """Reads `redis://`, `rediss://` (TLS) and `unix://` URLs.

        Raises:
            ConfigurationError: this is none. The message does not repeat the URL, which may hold a password.
        """
        try:
            parsed = urlparse(url)
            port = parsed.port
        except ValueError:  # its own words hold what stands where a port should, such as half a password
            raise ConfigurationError(f"the URL of Redis cannot be read: {_QUOTING}") from None
        if parsed.scheme not in SCHEMES:
            begins = parsed.scheme if "://" in url else "no scheme"
            raise ConfigurationError(
                f"the URL of Redis begins with {begins!r}, but must be redis://HOST:PORT/DB, "
                "rediss://HOST:PORT/DB (TLS) or unix:///PATH/TO/SOCKET"
            )
        if parsed.scheme != "unix" and "@" in parsed.path + parsed.fragment:
            raise ConfigurationError(f"the URL of Redis has an @ behind its host: {_QUOTING}")
        if parsed.scheme == "unix":
            shown = f"unix://{parsed.path}"
        else:
            shown = f"{parsed.scheme}://{parsed.hostname or 'localhost'}:{port or 6379}{parsed.path}"
        address = cls(shown, url)
        check_options(parse_url(url), shown=shown)
        address.connection(timeout_s=1.0)  # options that no connection knows are seen now
        return address

    def connection(self, *, timeout_s: float) -> AbstractConnection:
        """A connection that is not open yet. RESP2: one reply for one command, and messages that are plain lists."""
        options: dict[str, Any] = dict(parse_url(self._url))
        kind = options.pop("connection_class", Connection)
        options |= {
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "driver_info": None,
            "socket_timeout": None,  # every call has its own time limit
            "socket_connect_timeout": timeout_s,
        }
        try:
            made: AbstractConnection = kind(**options)
        except TypeError as error:
            raise ConfigurationError(f"the URL of Redis at {self.shown} has an unknown option: {error}") from None
        return made


class RedisConnections:
    """At most `size` connections; a call waits for a free one within its time limit."""

    def __init__(self, address: RedisAddress, *, size: int, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._free: list[AbstractConnection] = []
        self._slots = asyncio.Semaphore(size)
        self._closed = False

    async def execute(self, *command: str | bytes | int) -> Any:
        """Sends a command and returns its reply.

        Raises:
            QueueUnavailableError: no answer came, or the server cannot serve now.
            redis.exceptions.ResponseError: the server refused the command.
        """
        was_sent = False
        try:
            async with asyncio.timeout(self._timeout_s), self._connection() as connection:
                was_sent = True
                await connection.send_command(*command)
                return await connection.read_response()
        except (TimeoutError, RedisError, OSError) as error:
            if is_away(error):
                await self._drop_free()  # they most likely lead to the same dead server
                raise QueueUnavailableError(self._why(error, was_sent=was_sent)) from error
            raise

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AbstractConnection]:
        async with self._slots:
            connection = self._free.pop() if self._free else self._address.connection(timeout_s=self._timeout_s)
            try:
                if not connection.is_connected:
                    await connection.connect()  # type: ignore[no-untyped-call]
                yield connection
            except ResponseError:
                await self._give_back(connection)  # the reply was read whole
                raise
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            await self._give_back(connection)

    async def _give_back(self, connection: AbstractConnection) -> None:
        if self._closed:
            await connection.disconnect(nowait=True)
        else:
            self._free.append(connection)

    def _why(self, error: Exception, *, was_sent: bool) -> str:
        """Why a call was not served, and what would help. One that never left is not said to have run perhaps."""
        server = f"Redis at {self._address.shown}"
        if AuthenticationError in (type(error), type(error.__cause__)):  # over a socket file it comes wrapped
            return (
                f"{server} refuses this user and password, or wants some ({error}): put the right ones into its URL, "
                f"{self._address.form_with_password}"
            )
        if is_forbidden(error):
            return (
                f"{server} lets this user in, but not do what Shardline needs ({error}): give the user all commands, "
                "keys and channels of Shardline's prefix, or put another one into its URL, "
                f"{self._address.form_with_password}"
            )
        if str(error).startswith("MISCONF"):
            return (
                f"{server} cannot write its append-only file ({error}): make room on its disk, or see that it may "
                "write there"
            )
        reason = f"no answer within {self._timeout_s} s" if isinstance(error, TimeoutError) else str(error)
        if tls := told_reason(reason):
            return f"{server} and this client do not agree on TLS: {tls} ({reason})"
        if was_sent:
            told = f"{server} did not serve a call ({reason}): it may or may not have run, send it again"
        else:
            told = f"{server} cannot be reached ({reason}): start it, wait until it answers, or give its right URL"
        return told + suspicion(self._address.shown, reason)

    async def close(self) -> None:
        """Closes connections; one that is in a call is closed at the call's end."""
        self._closed = True
        await self._drop_free()

    async def _drop_free(self) -> None:
        free, self._free = self._free, []
        for connection in free:
            await connection.disconnect(nowait=True)


def is_away(error: Exception) -> bool:
    """Whether an error means that the server cannot serve now, as opposed to a command that is wrong."""
    if isinstance(error, (TimeoutError, *_AWAY)):
        return True
    return is_forbidden(error) or (isinstance(error, ResponseError) and str(error).startswith(_AWAY_CODES))


def is_forbidden(error: Exception) -> bool:
    """Whether the server's access list lacks something. Rights may be taken away, and given back, while we serve."""
    in_script = isinstance(error, ResponseError) and str(error).startswith(_FORBIDDEN_IN_SCRIPT)
    return in_script or isinstance(error, NoPermissionError)


def parse_info(text: bytes) -> Mapping[str, str]:
    """The lines of INFO as a mapping."""
    lines = (line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
    return {name: value.strip() for name, value in lines}
