"""`shardline usage`: what it prints, and what it asks for."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from shardline_cluster.access.access_rules import AccessRules
from shardline_cluster.access.api_key import ApiKey, Scope
from shardline_cluster.access.keyring import Keyring
from shardline_cluster.cli.commands.usage import render_usage
from shardline_cluster.cli.main import main
from shardline_cluster.fleet.memory_record_store import MemoryRecordStore
from shardline_protos import admin_pb2 as pb
from tests.cluster.access.known_keys import a_key, a_secret
from tests.cluster.queue.lane_calls import a_submission
from tests.cluster.router.router_bench import RouterBench, open_bench


@pytest.fixture
async def bench() -> AsyncIterator[RouterBench]:
    async with open_bench() as bench:
        yield bench


def test_the_table_sums_what_stands_in_it() -> None:
    usage = [
        pb.TenantUsage(tenant="shop", lane="lane-1", requests_done=5, prompt_tokens=70, completion_tokens=9),
        pb.TenantUsage(tenant="shop", lane="lane-2", requests_done=1, requests_failed=2, prompt_tokens=1),
    ]

    lines = [line.split() for line in render_usage(usage).splitlines()]

    assert lines[1:] == [
        ["shop", "lane-1", "5", "0", "0", "0", "70", "9"],
        ["shop", "lane-2", "1", "0", "0", "2", "1", "0"],
        ["all", "6", "0", "0", "2", "71", "9"],
    ]
    assert render_usage([]) == "No request has ended yet.\n"


async def test_the_command_asks_a_router_as_an_operator(
    bench: RouterBench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = (a_key("ops", scopes=frozenset({Scope.ADMIN})), a_key("tenant"))
    keyring = Keyring(AccessRules(flag_keys=keys), MemoryRecordStore[ApiKey]())
    await keyring.start()
    router = await bench.start_router(keyring)
    for number, tenant in enumerate(("shop", "shop", "other")):
        submission = a_submission(bench.server.identity, number, tenant=tenant)
        await bench.queue().submit("router", 1, submission)
        await bench.queue().cancel(submission.id, tenant)
    monkeypatch.setenv("SHARDLINE_API_KEY", a_secret("ops"))
    command = ["usage", "--endpoint", f"127.0.0.1:{router.port}", "--tenant", "shop", "--json"]

    code = await asyncio.to_thread(main, command)
    told = json.loads(capsys.readouterr().out)
    monkeypatch.setenv("SHARDLINE_API_KEY", a_secret("tenant"))
    refused = await asyncio.to_thread(main, command)
    await keyring.close()

    assert (code, refused) == (0, 1)
    [used] = told["usage"]
    assert (used["tenant"], used["requests_cancelled"], used["prompt_tokens"]) == ("shop", 2, 20)
    assert "lacks the scope 'admin'" in capsys.readouterr().err
