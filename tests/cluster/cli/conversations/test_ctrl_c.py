"""Ctrl-C while a stream is read: it is closed, and nothing is raised in the middle of gRPC."""

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from shardline.errors import StreamClosedError
from shardline_cluster.cli.conversations.ctrl_c import interrupted_between_events


class ClosableStream:
    """Waits for its next event until it is closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()

    def next_event(self) -> None:
        assert self.closed.wait(30)
        raise StreamClosedError("the stream was closed before its end was read")


@pytest.fixture
def stream() -> Any:
    return ClosableStream()


@pytest.fixture(autouse=True)
def _ctrl_c_at_a_terminal() -> Iterator[None]:
    """Whatever the suite was started with."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_it_is_raised_where_the_reader_is_told_and_not_where_it_came(stream: Any) -> None:
    passed_by = False

    with pytest.raises(KeyboardInterrupt), interrupted_between_events(stream):
        signal.raise_signal(signal.SIGINT)
        passed_by = True
        stream.next_event()

    assert passed_by
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_reader_that_was_just_done_is_interrupted_at_the_end(stream: Any) -> None:
    with pytest.raises(KeyboardInterrupt), interrupted_between_events(stream):
        signal.raise_signal(signal.SIGINT)


def test_a_second_one_is_raised_at_once(stream: Any) -> None:
    passed_by = False

    with pytest.raises(KeyboardInterrupt), interrupted_between_events(stream):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        passed_by = True

    assert not passed_by


def test_a_stream_that_somebody_else_closed_is_told_as_such(stream: Any) -> None:
    stream.close()

    with pytest.raises(StreamClosedError), interrupted_between_events(stream):
        stream.next_event()


def test_where_it_is_ignored_it_stays_so(stream: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    with interrupted_between_events(stream):
        signal.raise_signal(signal.SIGINT)

    assert not stream.closed.is_set()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
