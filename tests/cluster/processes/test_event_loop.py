import asyncio
import sys

import pytest

from shardline_cluster.processes.event_loop import new_event_loop


def test_the_faster_loop_is_taken_where_it_is_installed() -> None:
    uvloop = pytest.importorskip("uvloop")

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        assert isinstance(runner.get_loop(), uvloop.Loop)


def test_without_it_asyncios_own_loop_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        assert isinstance(runner.get_loop(), asyncio.SelectorEventLoop)
