"""Certificates for tests, in PEM files: good ones, expired ones, and those of a CA that nobody knows."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import trustme

ROUTER_NAME = "router.example"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    cert: Path
    key: Path

    def replace_by(self, other: "Pair") -> None:
        """The other's content in these files, in two writes, as careless operators do."""
        self.key.write_bytes(other.key.read_bytes())
        self.cert.write_bytes(other.cert.read_bytes())

    @property
    def pem(self) -> tuple[bytes, bytes]:
        """Key and chain, in gRPC's order."""
        return self.key.read_bytes(), self.cert.read_bytes()


class Authority:
    """A CA whose files lie in a folder of the test."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._name = name
        self._issued = 0
        self._ca = trustme.CA()
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def copy_to(self, file: str) -> None:
        """Writes the CA's certificate there."""
        Path(file).write_bytes(self.file.read_bytes())

    def pair(self, *names: str, expired: bool = False) -> Pair:
        """A new certificate for these names; by default for `ROUTER_NAME`."""
        now = datetime.now(UTC)
        ends = now - timedelta(days=1) if expired else now + timedelta(days=30)
        leaf = self._ca.issue_cert(*(names or (ROUTER_NAME,)), not_before=now - timedelta(days=30), not_after=ends)
        self._issued += 1
        pair = Pair(
            self._folder / f"{self._name}-{self._issued}.pem", self._folder / f"{self._name}-{self._issued}.key"
        )
        leaf.private_key_pem.write_to_path(str(pair.key))
        for certificate in leaf.cert_chain_pems:
            certificate.write_to_path(str(pair.cert), append=True)
        return pair

    def server_credentials(self, pair: Pair, *, ask_clients: bool = False) -> grpc.ServerCredentials:
        """What a test's own server listens with; `ask_clients` wants certificates of this CA."""
        return grpc.ssl_server_credentials([pair.pem], self.file.read_bytes(), require_client_auth=ask_clients)
