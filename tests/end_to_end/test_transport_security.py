"""A cluster whose every connection is TLS, as clients, strangers and the machine's other users see it."""

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from shardline import AsyncClient, TlsOptions
from shardline.errors import TlsError, UnauthenticatedError, UnknownRequestError
from tests.certificates import ROUTER_NAME, Authority, Pair
from tests.cluster.queue.guarded_redis import PASSWORD, QUOTED, guarded_redis
from tests.end_to_end.served_cluster import ServedCluster, served_cluster
from tests.end_to_end.streams import Heard, hear, whole_answer

pytestmark = [pytest.mark.process, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(120)]

SIMULATED = ("--engine", "simulated", "--simulated-step-s", "0.015")
ONE, TWO, EXPIRED, WRONG = (f"sesame-sesame-{name}" for name in ("one", "two", "old", "bad"))
SHUT_OUT_WITHIN_S = 20.0  # five are promised on a machine that is not loaded
KEY = "sl-testing-Jq0vX7mUuYw2"
SECRETS = (PASSWORD.encode(), QUOTED.encode(), KEY.encode())


@dataclass(frozen=True)
class _World:
    """A cluster that lets in clients with a certificate of one CA and a key of the file."""

    cluster: ServedCluster
    authority: Authority
    stranger: Authority
    server: Pair
    client_pair: Pair
    keys_file: Path

    @property
    def tls(self) -> TlsOptions:
        """What a client needs."""
        own = self.client_pair
        return TlsOptions(ca=self.authority.file, cert=own.cert, key=own.key, server_name=ROUTER_NAME)

    def client(self, key: str, **changes: Any) -> AsyncClient:
        """A client with this key, and with other options of TLS where `changes` names them."""
        return AsyncClient(self.cluster.endpoint, api_key=key, tls=replace(self.tls, **changes))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_World]:
    folder = tmp_path_factory.mktemp("pem")
    authority, stranger = Authority(folder), Authority(folder, "stranger")
    server, own = authority.pair(), authority.pair("client.example")
    keys_file = folder / "keys.jsonl"
    _write_keys(keys_file, ONE, TWO, EXPIRED)
    flags = ("--tls-cert", server.cert, "--tls-key", server.key, "--tls-client-ca", authority.file)
    with served_cluster(
        *SIMULATED, "--launcher", "local", "--routers", "2", *map(str, flags), "--api-keys-file", str(keys_file)
    ) as cluster:
        yield _World(cluster, authority, stranger, server, own, keys_file)


def _write_keys(file: Path, *keys: str) -> None:
    """A file with a tenant for each key."""
    file.touch(mode=0o600)
    lines = [{"id": key[-3:], "key": key, "tenant": key[-3:]} for key in keys]
    expired = [line | {"expires": "2020-01-01T00:00:00Z"} if line["key"] == EXPIRED else line for line in lines]
    file.write_text("".join(json.dumps(line) + "\n" for line in expired))


async def test_strangers_are_told_what_is_missing_and_the_servers_own_user_needs_nothing(world: _World) -> None:
    for tls, told in (
        (False, "it speaks TLS there"),
        (TlsOptions(ca=world.stranger.file, server_name=ROUTER_NAME), "CA that this client does not trust"),
        (TlsOptions(ca=world.authority.file, server_name=ROUTER_NAME), "it wants a client's certificate"),
        (replace(world.tls, server_name=None), "is for another name than its address"),
    ):
        async with AsyncClient(world.cluster.endpoint, api_key=ONE, tls=tls) as client:
            with pytest.raises(TlsError, match=told):
                await client.generate("Hi", max_tokens=2)
    assert _commands(world) == (0, 0)


def _commands(world: _World) -> tuple[int, int]:
    """Exit codes of a command that finds the server by name, and of one that is told everything."""
    generate, tls = ("generate", "Hi", "--max-tokens", "2", "--api-key", ONE), world.tls
    flags = ("--tls-ca", tls.ca, "--tls-cert", tls.cert, "--tls-key", tls.key, "--tls-server-name", tls.server_name)
    by_name = world.cluster.command(*generate, "--name", world.cluster.name)
    by_endpoint = world.cluster.command(*generate, "--endpoint", world.cluster.endpoint, *map(str, flags))
    return by_name.returncode, by_endpoint.returncode


async def test_a_new_certificate_counts_for_new_connections_and_streams_go_on(world: _World) -> None:
    old = Pair(world.server.cert.with_suffix(".old"), world.server.key.with_suffix(".old-key"))
    old.replace_by(world.server)
    new_ca = world.stranger.file
    async with world.client(ONE) as client:
        expected = await whole_answer(client, "tell", max_tokens=60, seed=7)
        heard = Heard()
        async with client.stream("tell", max_tokens=60, seed=7) as stream:
            await hear(stream, until_tokens=20, into=heard)
            world.server.replace_by(world.stranger.pair())
            async with world.client(ONE, ca=new_ca) as later, world.client(ONE) as late:
                after = await whole_answer(later, "tell", max_tokens=60, seed=7)
                with pytest.raises(TlsError, match="CA that this client does not trust"):
                    await late.models()
            await hear(stream, into=heard)
    world.server.replace_by(old)

    assert heard.ids == expected.ids == after.ids


async def test_two_tenants_over_tls_and_a_key_that_is_taken_away_in_mid_stream(world: _World) -> None:
    for key, told in ((WRONG, "not known here"), (EXPIRED, "expired")):
        async with world.client(key) as client:
            with pytest.raises(UnauthenticatedError, match=told):
                await client.generate("Hi", max_tokens=2)

    async with world.client(ONE) as one, world.client(TWO) as two:
        async with one.stream("tell", max_tokens=2_000, seed=7) as stream:
            heard = await hear(stream, until_tokens=5)
            others = str(stream.request_id)
            for look in (two.get_request, two.cancel):
                with pytest.raises(UnknownRequestError):
                    await look(others)
            with pytest.raises(UnknownRequestError):
                await two.resume(others).result()
            _write_keys(world.keys_file, TWO)
            async with asyncio.timeout(SHUT_OUT_WITHIN_S):
                with pytest.raises(UnauthenticatedError):
                    await hear(stream, into=heard)
        assert (await two.generate("Hi", max_tokens=2)).usage.completion_tokens == 2


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
