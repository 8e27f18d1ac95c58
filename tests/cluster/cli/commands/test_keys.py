"""`shardline keys` against a real router, whose store is in memory."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from shardline_cluster.access.access_rules import AccessRules
from shardline_cluster.access.api_key import ApiKey, Scope
from shardline_cluster.access.keyring import Keyring
from shardline_cluster.cli.main import main
from shardline_cluster.fleet.memory_record_store import MemoryRecordStore
from tests.cluster.access.known_keys import Clock, a_key, a_secret
from tests.cluster.router.router_bench import open_bench

OPS = a_key("ops", scopes=frozenset(Scope), label="of the operators")


@dataclass(frozen=True, slots=True)
class _Said:
    code: int
    out: str
    err: str


class _Cluster:
    def __init__(self, endpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._endpoint = endpoint
        self._capsys = capsys

    async def keys(self, *arguments: str, secret: str = a_secret("ops")) -> _Said:
        """The command, shown a key in its environment's place."""
        shown = ("--api-key", secret) if secret else ()
        code = await asyncio.to_thread(main, ["keys", *arguments, "--endpoint", self._endpoint, *shown])
        said = self._capsys.readouterr()
        return _Said(code, said.out, said.err)

    async def create(self, *arguments: str) -> str:
        """The id of a new key."""
        return str(json.loads((await self.keys("create", "--json", *arguments)).out)["id"])

    async def listed(self) -> dict[str, dict[str, object]]:
        """By id."""
        keys = json.loads((await self.keys("list", "--json")).out)["keys"]
        return {str(key["id"]): key for key in keys}


@pytest.fixture
async def cluster(capsys: pytest.CaptureFixture[str]) -> AsyncIterator[_Cluster]:
    async for cluster in _clusters(AccessRules(flag_keys=(OPS,)), capsys):
        yield cluster


@pytest.fixture
async def open_cluster(capsys: pytest.CaptureFixture[str]) -> AsyncIterator[_Cluster]:
    async for cluster in _clusters(AccessRules(), capsys):
        yield cluster


async def _clusters(rules: AccessRules, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[_Cluster]:
    clock = Clock()
    keyring = Keyring(rules, MemoryRecordStore[ApiKey](now_ms=clock), now_ms=clock)
    async with open_bench() as bench:
        await keyring.start()
        router = await bench.start_router(keyring)
        yield _Cluster(f"127.0.0.1:{router.port}", capsys)
    await keyring.close()


async def test_a_new_key_stands_alone_on_standard_output_so_that_it_can_be_captured(cluster: _Cluster) -> None:
    made = await cluster.keys("create", "--tenant", "shop", "--expires-in", "30d")

    secret = made.out.strip()
    assert made.code == 0
    assert made.out == f"{secret}\n" and secret.startswith("sl-")
    assert "of the tenant shop, for generate, which expires at 2027-02-14T08:00:00Z" in made.err
    assert secret not in made.err
    refused = await cluster.keys("list", secret=secret)
    assert (refused.code, refused.out) == (1, "")
    assert "lacks the scope 'admin'" in refused.err


async def test_a_key_has_all_that_its_flags_say(cluster: _Cluster) -> None:
    key_id = await cluster.create(
        *("--tenant", "shop", "--scope", "generate", "--scope", "admin", "--label", "of the site"),
        *("--requests-per-minute", "60", "--tokens-per-minute", "100000", "--expires-in", "12h"),
    )

    assert (await cluster.listed())[key_id] == {
        "id": key_id,
        "tenant": "shop",
        "scopes": ["admin", "generate"],
        "requests_per_minute": 60,
        "tokens_per_minute": 100_000,
        "label": "of the site",
        "created": "2027-01-15T08:00:00Z",
        "expires": "2027-01-15T20:00:00Z",
        "source": "admin",
    }


async def test_people_get_a_table(cluster: _Cluster) -> None:
    key_id = await cluster.create("--tenant", "shop", "--requests-per-minute", "60")

    lines = (await cluster.keys("list")).out.splitlines()

    assert lines[0].split() == ["ID", "TENANT", "SCOPES", "REQUESTS/MIN", "TOKENS/MIN", "EXPIRES", "SOURCE", "LABEL"]
    assert [line.split() for line in lines[1:]] == sorted(
        [
            [key_id, "shop", "generate", "60", "-", "never", "admin"],
            ["ops", "tenant-ops", "admin,generate", "-", "-", "never", "flag", "of", "the", "operators"],
        ]
    )


async def test_an_update_leaves_the_limit_that_it_does_not_name(cluster: _Cluster) -> None:
    key_id = await cluster.create("--requests-per-minute", "60", "--tokens-per-minute", "1000")

    told = await cluster.keys("update", key_id, "--requests-per-minute", "none", "--label", "new")

    key = (await cluster.listed())[key_id]
    assert (key["requests_per_minute"], key["tokens_per_minute"], key["label"]) == (None, 1_000, "new")
    assert told.out == f"changed the key {key_id} of the tenant default, for generate, which never expires\n"


async def test_several_keys_are_revoked_in_one_go(cluster: _Cluster) -> None:
    ids = [await cluster.create(), await cluster.create()]

    told = await cluster.keys("revoke", *ids)

    assert told.out.splitlines() == [f"revoked the key {key_id}" for key_id in ids]
    assert set(await cluster.listed()) == {"ops"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("update", "nobody", "--label", "x"), "there is no key 'nobody': `shardline keys list` names them"),
        (("update", "nobody", "--tokens-per-minute", "5"), "there is no key 'nobody'"),
        (("update", "ops"), "nothing is to be changed: give --requests-per-minute"),
        (("revoke", "ops"), "the key ops comes from a flag, where this call does not reach: start the routers with"),
        (("create", "--tenant", "a b"), "tenant is 'a b': must have 1 to 64 characters"),
    ],
)
async def test_a_refusal_is_one_line_with_its_remedy(cluster: _Cluster, arguments: tuple[str, ...], told: str) -> None:
    said = await cluster.keys(*arguments)

    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"shardline: {told}") and said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", "--expires-in", "soon"), "'soon' is no period: write 90s, 30m, 12h or 30d"),
        (("create", "--expires-in", "0d"), "'0d' is no period"),
        (("create", "--scope", "root"), "invalid choice: 'root'"),
        (("create", "--requests-per-minute", "0"), "0 is out of bounds"),
        (("update", "x", "--tokens-per-minute", "many"), "'many' is not a whole number"),
        (("revoke",), "required: ID"),
        ((), "required: ACTION"),
    ],
)
def test_wrong_flags_are_told_before_anybody_is_asked(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", *arguments]) == 2

    assert told in capsys.readouterr().err


async def test_a_wrong_key_is_not_repeated(cluster: _Cluster) -> None:
    said = await cluster.keys("list", secret="open-sesame-open-sesame")

    assert said.code == 1
    assert "is not known here" in said.err and "sesame" not in said.err


async def test_the_first_key_of_an_open_cluster_closes_it(open_cluster: _Cluster) -> None:
    empty = await open_cluster.keys("list", secret="")
    refused = await open_cluster.keys("create", secret="")
    made = await open_cluster.keys("create", "--scope", "admin", secret="")
    closed = await open_cluster.keys("list", secret="")
    listed = await open_cluster.keys("list", secret=made.out.strip())

    assert empty.out.startswith("There are no keys")
    assert "this would be the first key" in refused.err
    assert "no key was shown" in closed.err and "***" not in closed.err
    assert "admin" in listed.out


async def test_the_key_may_come_from_the_environment(cluster: _Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDLINE_API_KEY", a_secret("ops"))

    assert (await cluster.keys("list", secret="")).code == 0


async def test_where_no_router_answers_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "list", "--name", "nobody"]) == 1

    assert "no server named 'nobody'" in capsys.readouterr().err
