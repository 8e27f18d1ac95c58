"""Which router to ask next: several addresses, taken in turn, those that failed lately left alone for a while.

Bookkeeping on a clock that is handed in; safe to share between threads. Opens no connection.
"""

import random
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from shardline.call_failure import CallFailure
from shardline.errors import InvalidArgumentError

FIRST_BACK_OFF_S = 0.1
LONGEST_BACK_OFF_S = 4.0
_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:/\s\[\]]+):(?P<port>\d{1,5})")


@dataclass(slots=True)
class _EndpointState:
    failures: int = 0  # in a row
    usable_at: float = 0.0
    rejects: bool = False  # it and this client do not agree on TLS


class Endpoints:
    """The addresses of a cluster's routers and how each fared lately."""

    def __init__(self, addresses: str | Sequence[str], *, draw: Callable[[], float] = random.random) -> None:
        listed = [addresses] if isinstance(addresses, str) else list(addresses)
        if not listed:
            raise InvalidArgumentError("no endpoint was given: name at least one router as host:port")
        self._states = {checked_address(address): _EndpointState() for address in listed}
        self._addresses = tuple(self._states)
        self._draw = draw
        # Clients that start together begin at different routers.
        self._next = int(draw() * len(self._addresses))
        self._lock = threading.Lock()

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of them, without repeats, as they were given."""
        return self._addresses

    def choose(self, now: float) -> str:
        """The next address in turn that may be used now, else the one that may be soonest."""
        with self._lock:
            turn = self._addresses[self._next :] + self._addresses[: self._next]
            usable = [a for a in turn if self._states[a].usable_at <= now]
            chosen = usable[0] if usable else min(turn, key=lambda a: self._states[a].usable_at)
            self._next = (self._addresses.index(chosen) + 1) % len(self._addresses)
            return chosen

    def wait_s(self, now: float) -> float:
        """Seconds until some address may be used; 0 if one may now."""
        with self._lock:
            return max(0.0, min(state.usable_at for state in self._states.values()) - now)

    def failed(self, address: str, now: float, *, rejects: bool = False) -> None:
        """This router was lost, or `rejects` us as it and we do not agree on TLS: leave it alone, longer each time."""
        with self._lock:
            state = self._states[address]
            longest = min(LONGEST_BACK_OFF_S, FIRST_BACK_OFF_S * 2.0 ** min(state.failures, 16))
            state.failures += 1
            state.rejects = rejects
            state.usable_at = now + longest * (0.5 + 0.5 * self._draw())

    def after(self, address: str, failure: CallFailure, now: float) -> CallFailure:
        """Takes a failed call in; returns what it means. One router that rejects us is only lost, unless all do."""
        if failure.lost:
            self.failed(address, now, rejects=bool(failure.rejection))
        return failure if self.all_reject else replace(failure, rejection="")

    def succeeded(self, address: str) -> None:
        """This router answered."""
        with self._lock:
            state = self._states[address]
            state.failures, state.usable_at, state.rejects = 0, 0.0, False

    @property
    def all_reject(self) -> bool:
        """Whether no router is left that may talk to this client."""
        with self._lock:
            return all(state.rejects for state in self._states.values())


def checked_address(address: str) -> str:
    """The address, if it is `host:port`, `[ipv6]:port` or `unix:path`.

    Raises:
        InvalidArgumentError: it is something else.
    """
    if address.startswith("unix:") and len(address) > len("unix:"):
        return address
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise InvalidArgumentError(
            f"the endpoint {address!r} is not an address: write host:port (such as 127.0.0.1:50051), "
            f"[ipv6]:port or unix:/path/to/socket, without a scheme"
        )
    return address
