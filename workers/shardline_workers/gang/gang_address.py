"""Where rank processes find their leader, and what proves that they belong there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

SECRET_VARIABLE = "SHARDLINE_GANG_SECRET"  # of a rank process's environment: arguments are seen by everyone on a host
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class GangAddress:
    """A leader's listener. Whoever has the secret can become a rank: it goes to rank processes only."""

    host: str
    port: int
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Raises ValueError for what can be no address."""
        if not 0 < self.port < 65536 or not self.host:
            raise ValueError(f"the leader's address is {str(self)!r}; it must be HOST:PORT with a port of 1 to 65535")
        if len(self.secret) != _SECRET_BYTES:
            raise ValueError(f"the gang's secret has {len(self.secret)} bytes; it must have {_SECRET_BYTES}")

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str]) -> Self:
        """From `HOST:PORT` (an IPv6 address in brackets or bare) and the environment that has the secret.

        Raises:
            ValueError: one of them is missing or wrong; the text never quotes the secret.
        """
        host, _, port = text.rpartition(":")
        secret = environment.get(SECRET_VARIABLE, "")
        try:
            decoded = bytes.fromhex(secret)
        except ValueError:
            decoded = b""
        if len(decoded) != _SECRET_BYTES:
            raise ValueError(f"{SECRET_VARIABLE} must hold {2 * _SECRET_BYTES} hexadecimal digits, the leader's secret")
        if not port.isascii() or not port.isdigit():
            raise ValueError(f"the leader's address is {text!r}; it must be HOST:PORT")
        return cls(host=host.strip("[]"), port=int(port), secret=decoded)

    def environment(self) -> dict[str, str]:
        """What a rank process needs in its environment."""
        return {SECRET_VARIABLE: self.secret.hex()}

    def __str__(self) -> str:
        """`HOST:PORT`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
