"""A cluster whose every connection is TLS, as clients, strangers and the machine's other users see it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardline import AsyncClient, TlsOptions
from shardline.errors import TlsError, UnauthenticatedError
from tests.certificates import ROUTER_NAME, Authority, Pair
from tests.cluster.queue.guarded_redis import PASSWORD, QUOTED, guarded_redis
from tests.end_to_end.served_cluster import ServedCluster, served_cluster
from tests.end_to_end.streams import Heard, hear, whole_answer

pytestmark = [pytest.mark.process, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(120)]

SIMULATED = ("--engine", "simulated", "--simulated-step-s", "0.015")
KEY = "sl-testing-Jq0vX7mUuYw2"
SECRETS = (PASSWORD.encode(), QUOTED.encode(), KEY.encode())


def tls_flags(server: Pair, clients: Authority) -> tuple[str, ...]:
    return ("--tls-cert", str(server.cert), "--tls-key", str(server.key), "--tls-client-ca", str(clients.file))


async def test_mutual_tls_from_the_first_connection_over_a_new_certificate(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    server, own = authority.pair(), authority.pair("client.example")
    good = TlsOptions(ca=authority.file, cert=own.cert, key=own.key, server_name=ROUTER_NAME)
    with served_cluster(*SIMULATED, "--launcher", "local", "--routers", "2", *tls_flags(server, authority)) as cluster:
        await _strangers_are_told(cluster.endpoint, good, stranger)
        by_name, by_endpoint = _commands(cluster, good)
        async with AsyncClient(cluster.endpoint, tls=good) as client:
            expected = await whole_answer(client, "tell", max_tokens=60, seed=7)
            heard = Heard()
            async with client.stream("tell", max_tokens=60, seed=7) as stream:
                await hear(stream, until_tokens=20, into=heard)
                server.replace_by(stranger.pair())
                new = TlsOptions(ca=stranger.file, cert=own.cert, key=own.key, server_name=ROUTER_NAME)
                async with (
                    AsyncClient(cluster.endpoint, tls=new) as later,
                    AsyncClient(cluster.endpoint, tls=good) as late,
                ):
                    after = await whole_answer(later, "tell", max_tokens=60, seed=7)
                    with pytest.raises(TlsError, match="CA that this client does not trust"):
                        await late.models()
                await hear(stream, into=heard)

    assert (by_name, by_endpoint) == (0, 0)
    assert heard.ids == expected.ids == after.ids


async def _strangers_are_told(endpoint: str, good: TlsOptions, stranger: Authority) -> None:
    for tls, told in (
        (False, "it speaks TLS there"),
        (TlsOptions(ca=stranger.file, server_name=ROUTER_NAME), "CA that this client does not trust"),
        (TlsOptions(ca=good.ca, server_name=ROUTER_NAME), "it wants a client's certificate"),
        (TlsOptions(ca=good.ca, cert=good.cert, key=good.key), "is for another name than its address"),
    ):
        async with AsyncClient(endpoint, tls=tls) as client:
            with pytest.raises(TlsError, match=told):
                await client.generate("Hi", max_tokens=2)


def _commands(cluster: ServedCluster, tls: TlsOptions) -> tuple[int, int]:
    """Exit codes of a command that finds the server by name, and of one that is told everything."""
    generate = ("generate", "Hi", "--max-tokens", "2")
    flags = ("--tls-ca", tls.ca, "--tls-cert", tls.cert, "--tls-key", tls.key, "--tls-server-name", tls.server_name)
    by_name = cluster.command(*generate, "--name", cluster.name)
    by_endpoint = cluster.command(*generate, "--endpoint", cluster.endpoint, *map(str, flags))
    return by_name.returncode, by_endpoint.returncode


@pytest.mark.ray
async def test_a_redis_with_tls_and_users_serves_and_no_secret_is_seen_by_others(tmp_path: Path) -> None:
    with (
        guarded_redis(tmp_path) as redis,
        served_cluster(*SIMULATED, "--redis-url", redis.url(), f"--api-key={KEY}") as cluster,
    ):
        async with AsyncClient(cluster.endpoint) as stranger:
            with pytest.raises(UnauthenticatedError):
                await stranger.models()
        async with AsyncClient(cluster.endpoint, api_key=KEY) as client:
            answer = await whole_answer(client, "tell", max_tokens=20, seed=7)
        status = cluster.command("status", "--name", cluster.name)
        lines = cluster.command_lines()
        open_to = {what: _who_reads(file, cluster.folder) for what, file in _files_with_secrets(cluster)}

    assert len(answer.ids[0]) == 20
    assert (status.returncode, "READY" in status.stdout) == (0, True)
    assert len(lines) > 5
    assert not [line for line in lines if any(secret.decode() in line for secret in SECRETS)]
    # Commands need it, and a restarted head of Ray must know how its actors were made.
    assert open_to == {"run": "owner", "gcs": "owner"}


def _files_with_secrets(cluster: ServedCluster) -> Iterator[tuple[str, Path]]:
    """Files of the cluster's that hold the password, by the part that they are of; logs would be among them."""
    for parent, _, names in os.walk(cluster.folder):
        for file in (Path(parent, name) for name in names):
            if file.is_file() and any(secret in file.read_bytes() for secret in SECRETS):
                part = next((part for part in ("gcs", "run") if part in file.parts), str(file))
                yield part, file


def _who_reads(file: Path, top: Path) -> str:
    """Of a file's users, by its own mode and those of the folders between."""
    between = [folder for folder in file.parents if folder.is_relative_to(top) and folder != top]
    closed = any(entry.stat().st_mode & 0o077 == 0 for entry in (file, *between))
    return "owner" if closed else "everybody"
