"""Routers that are killed for real: the statuses that gRPC makes of it are not ours to choose."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardline import AsyncClient, Client, Tokens, channels
from shardline.channels import keepalive_options
from shardline.patience import KEEPALIVE_BOUND_S
from tests.cluster.client.router_process import TEXT

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[3]
PAUSE_AFTER = 12


class RouterProcess:
    def __init__(self, *, pause_after: int) -> None:
        path = os.pathsep.join(str(ROOT / folder) for folder in ("protos", "workers", "cluster", "."))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.client.router_process", str(pause_after)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()

    def hang(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def dying() -> Iterator[RouterProcess]:
    router = RouterProcess(pause_after=PAUSE_AFTER)
    yield router
    router.kill()


@pytest.fixture
def surviving() -> Iterator[RouterProcess]:
    router = RouterProcess(pause_after=0)
    yield router
    router.kill()


def test_streams_go_on_at_the_exact_token(dying: RouterProcess, surviving: RouterProcess) -> None:
    received = []
    with Client([dying.address, surviving.address]) as client:
        streams = [client.stream("Hi") for _ in range(4)]
        pieces = [[next(stream) for _ in range(PAUSE_AFTER)] for stream in streams]
        dying.kill()
        for stream, begun in zip(streams, pieces, strict=True):
            received.append([event for event in [*begun, *stream] if isinstance(event, Tokens)])

    for tokens in received:
        assert "".join(event.text for event in tokens) == TEXT
        assert [event.offset for event in tokens if event.token_ids] == list(range(len(TEXT)))


async def test_asynchronous_streams_go_on_as_well(dying: RouterProcess, surviving: RouterProcess) -> None:
    texts = []
    async with AsyncClient([dying.address, surviving.address]) as client:
        streams = [client.stream("Hi") for _ in range(4)]
        pieces = [[await anext(stream) for _ in range(PAUSE_AFTER)] for stream in streams]
        dying.kill()
        for stream, begun in zip(streams, pieces, strict=True):
            rest = [event async for event in stream]
            texts.append("".join(event.text for event in begun + rest if isinstance(event, Tokens)))

    assert texts == [TEXT] * 4


def test_a_router_that_hangs_is_left_when_it_answers_no_ping(
    dying: RouterProcess, surviving: RouterProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = keepalive_options(ping_after_ms=1_000, ping_timeout_ms=500)
    options = dict(channels.CHANNEL_OPTIONS) | dict(impatient)
    monkeypatch.setattr(channels, "CHANNEL_OPTIONS", tuple(options.items()))

    with Client([dying.address, surviving.address]) as client:
        streams = [client.stream("Hi") for _ in range(2)]
        pieces = [[next(stream) for _ in range(PAUSE_AFTER)] for stream in streams]
        hung_at = time.monotonic()
        dying.hang()
        received = [[*begun, *stream] for stream, begun in zip(streams, pieces, strict=True)]
        took_s = time.monotonic() - hung_at

    for events in received:
        assert "".join(event.text for event in events if isinstance(event, Tokens)) == TEXT
    assert took_s < 30  # gRPC's own limit for pings is a minute


def test_what_patience_takes_for_a_connection_lasts_longer_than_a_silent_one() -> None:
    assert KEEPALIVE_BOUND_S * 1000 >= channels.PING_AFTER_MS + channels.PING_TIMEOUT_MS
