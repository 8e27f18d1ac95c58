"""A Redis server that speaks TLS, asks for certificates, and knows users: what an operator would set up."""

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.certificates import Authority, Pair

PASSWORD = "a-pass/word+of:Redis"  # with characters that a URL must not hold as they are
QUOTED = "a-pass%2Fword%2Bof%3ARedis"
DOCUMENTED = re.compile(r"^user shardline on >PASSWORD .*$", re.MULTILINE)
STARTED_WITHIN_S = 30.0


@dataclass(frozen=True)
class GuardedRedis:
    """A running server, and how it is found."""

    authority: Authority
    client: Pair
    tls_port: int
    plain_port: int
    process: "subprocess.Popen[bytes]"

    def url(
        self, *, user: str = "shardline", password: str = QUOTED, scheme: str = "rediss", files: bool = True
    ) -> str:
        """With all that the server asks for."""
        port = self.plain_port if scheme == "redis" else self.tls_port
        options = f"?ssl_ca_certs={self.authority.file}" if files else ""
        shown = f"&ssl_certfile={self.client.cert}&ssl_keyfile={self.client.key}" if files else ""
        return f"{scheme}://{user}:{password}@localhost:{port}/0{options}{shown}"


def documented_user() -> str:
    """The line of docs/security.md that operators copy."""
    found = DOCUMENTED.findall((Path(__file__).parents[3] / "docs/security.md").read_text("utf-8"))
    assert len(found) == 1, "docs/security.md shows one line for a user of Redis"
    return str(found[0]).replace("PASSWORD", PASSWORD)


@contextmanager
def guarded_redis(folder: Path) -> Iterator[GuardedRedis]:
    """Runs it for as long as the block lasts; skips the test where this machine's Redis cannot do it."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("TLS wants Debian's redis-server: the packaged Valkey is built without it")
    authority = Authority(folder)
    server, client = authority.pair("localhost"), authority.pair("client.example")
    tls_port, plain_port = _free_port(), _free_port()
    config = folder / "redis.conf"
    config.write_text(
        f"port {plain_port}\nbind 127.0.0.1\ntls-port {tls_port}\ntls-cert-file {server.cert}\n"
        f"tls-key-file {server.key}\ntls-ca-cert-file {authority.file}\ntls-auth-clients yes\n"
        f"user default off\n{documented_user()}\nuser stranger on >{PASSWORD} ~other:* &* +@all\n"
        f"user mute on >{PASSWORD} ~* resetchannels +@all\nuser reader on >{PASSWORD} %R~* &* +@all\n"
        f"user unscripted on >{PASSWORD} ~* &* +@all -evalsha\n"
        f"user deaf on >{PASSWORD} ~* &* +@all -ssubscribe\nuser blind on >{PASSWORD} ~* &* +@all -scan\n"
        'save ""\n'
        f"appendonly yes\ndir {folder}\n"
    )
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen([binary, str(config)], stdout=log, stderr=log)
    try:
        _wait_until_it_listens(process, tls_port, folder / "redis.log")
        yield GuardedRedis(authority, client, tls_port, plain_port, process)
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_it_listens(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + STARTED_WITHIN_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
