"""Wrong command lines end with their exit code and one error that helps, before anything is started."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from shardline_cluster.cli.main import main
from tests.bad_input.cli_row import Row
from tests.bad_input.cli_rows import ASKED, SAID, WRITTEN
from tests.bad_input.served_tiny_model import serve_tiny_model
from tests.bad_input.tiny_model import write_tiny_model
from tests.cluster.served_engine import ServedEngine

_AWQ: dict[str, object] = {"quantization_config": {"quant_method": "awq"}}

pytestmark = pytest.mark.process  # a template is rendered in a process; nothing else starts one


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What rows name: files, and ports that are taken and free."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "empty").mkdir()
    (folder / "notes.txt").write_text("notes")
    (folder / "loop.gguf").symlink_to(folder / "loop.gguf")
    (folder / "broken.jinja").write_text("{% for %}")
    with socket.socket() as taken, socket.socket() as free:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free.bind(("127.0.0.1", 0))
        yield {
            "folder": str(folder),
            "tiny": str(write_tiny_model(folder / "tiny")),
            "quantised": str(write_tiny_model(folder / "quantised", changes=_AWQ)),
            "long": "x" * 5_000,
            "book": "z" * 300,
            "taken": str(taken.getsockname()[1]),
            "free": str(free.getsockname()[1]),
        }


@pytest.fixture(autouse=True)
def _private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SHARDLINE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("REDIS_URL", raising=False)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServedEngine]:
    async with serve_tiny_model(tmp_path_factory.mktemp("tiny")) as served:
        yield served


@pytest.mark.parametrize("row", [*WRITTEN, *SAID], ids=lambda row: row.what)
def test_a_wrong_command_line_is_one_error_that_helps(
    row: Row, made: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"SHARDLINE_GRPC_PORT": "0", **row.environment}.items():  # the default one may be in use here
        monkeypatch.setenv(name, value)

    code = main(row.argv(made))

    _check(row, code, capsys.readouterr(), made)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("row", ASKED, ids=lambda row: row.what)
async def test_a_refusal_of_a_router_is_told_in_the_words_of_the_command_line(
    row: Row, made: dict[str, str], served: ServedEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    made = made | {"router": f"127.0.0.1:{served.router.port}"}

    code = await asyncio.to_thread(main, row.argv(made))

    output = capsys.readouterr()
    assert output.out == ""
    _check(row, code, output, made)
    assert await served.comes_to_rest()


def _check(row: Row, code: int, output: tuple[str, str], made: dict[str, str]) -> None:
    out, err = output
    assert code == row.code, output
    assert [part for part in row.told(made) if part not in err] == [], output
    lines = err.splitlines()
    assert lines[0].startswith("shardline") and len(lines) <= 2, output
    assert "Traceback" not in err + out
