"""What a process writes: one line for people, or one JSON object with every field that is known."""

import asyncio
import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from shardline_cluster.telemetry.log_fields import log_as_about
from shardline_cluster.telemetry.log_output import last_words, message_of, set_up_logging, teller
from shardline_cluster.telemetry.telemetry_config import LogFormat, LogLevel, TelemetryConfig

FIELDS = {"replica": "tiny-0", "lane": "tiny-1", "model": "tiny"}


class _Log:
    """What goes to standard error, and one process's set-up."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self._written = ""

    def set_up(self, log_format: LogFormat, level: LogLevel = LogLevel.INFO) -> None:
        set_up_logging(TelemetryConfig(log_format=log_format, log_level=level), "replica", name="tiny-0", fields=FIELDS)

    @property
    def lines(self) -> list[str]:
        self._written += self._capture.readouterr().err
        return self._written.splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Iterator[_Log]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    hooks = sys.excepthook, threading.excepthook
    yield _Log(capsys)
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(capture=False)
    os.environ.pop("GRPC_VERBOSITY", None)


def test_a_json_line_has_all_that_is_known(log: _Log) -> None:
    log.set_up(LogFormat.JSON)

    logging.getLogger("shardline.any").warning("%d blocks are left", 3, extra={"request_id": "r-1", "secret": "x"})

    (told,) = log.objects
    assert told.pop("time").endswith("Z")
    assert told == {
        "level": "warning",
        "process": "replica",
        "message": "3 blocks are left",
        "logger": "shardline.any",
        "request_id": "r-1",
        **FIELDS,
    }


def test_an_exception_is_a_field_and_its_line_stays_one(log: _Log) -> None:
    log.set_up(LogFormat.JSON)

    try:
        raise ValueError("of two\nlines")
    except ValueError:
        logging.getLogger().exception("it went wrong")

    (told,) = log.objects
    assert told["message"] == "it went wrong"
    assert told["exception"].startswith("Traceback")
    assert told["exception"].endswith("ValueError: of two\nlines")


def test_a_line_for_people_names_the_replica_and_the_request(log: _Log) -> None:
    log.set_up(LogFormat.HUMAN)

    logging.getLogger().info("began", extra={"request_id": "r-1"})
    logging.getLogger().info("r-1 ended", extra={"request_id": "r-1"})

    began, ended = log.lines
    assert began.endswith(" tiny-0 INFO began [r-1]")
    assert ended.endswith(" tiny-0 INFO r-1 ended")


def test_lines_less_grave_than_the_level_are_left_out(log: _Log) -> None:
    log.set_up(LogFormat.JSON, LogLevel.WARNING)

    logging.getLogger().info("no")
    logging.getLogger().warning("yes")

    assert [told["message"] for told in log.objects] == ["yes"]


async def test_what_a_task_logs_is_about_its_request_and_about_no_other_task_s(log: _Log) -> None:
    log.set_up(LogFormat.JSON)

    async def call(request_id: str) -> None:
        log_as_about(request_id)
        await asyncio.sleep(0)
        await asyncio.create_task(work())

    async def work() -> None:
        logging.getLogger().info("working")

    await asyncio.gather(call("r-1"), call("r-2"))
    logging.getLogger().info("idle")

    assert [told.get("request_id") for told in log.objects] == ["r-1", "r-2", None]


def test_libraries_warnings_and_uncaught_exceptions_go_the_same_way(log: _Log) -> None:
    log.set_up(LogFormat.JSON)

    logging.getLogger("grpc._cython.cygrpc").error("a library speaks")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("be careful", UserWarning, stacklevel=1)
    thread = threading.Thread(target=lambda: 1 // 0, name="metrics")
    thread.start()
    thread.join()
    try:
        raise RuntimeError("the end")
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, error.__traceback__)

    library, warning, of_thread, end = log.objects
    assert (library["logger"], library["message"]) == ("grpc._cython.cygrpc", "a library speaks")
    assert "be careful" in warning["message"]
    assert of_thread["message"] == "the thread metrics ended: nobody caught a ZeroDivisionError"
    assert "ZeroDivisionError" in of_thread["exception"]
    assert (end["level"], end["message"]) == ("critical", "this process ends: nobody caught a RuntimeError")


def test_last_words_are_plain_for_people_and_can_be_read_back_from_both(log: _Log) -> None:
    for log_format in LogFormat:
        log.set_up(log_format)
        last_words("no such model", log_format)

    plain, packed = log.lines
    assert plain == message_of(plain) == message_of(packed) == "no such model"
    assert message_of("{broken") == "{broken"


def test_an_operator_is_told_in_the_format_of_the_logs() -> None:
    said: list[str] = []

    teller(LogFormat.HUMAN, "serve", said.append)("ready")
    teller(LogFormat.JSON, "serve", said.append)("ready")

    assert said[0] == "ready"
    assert json.loads(said[1]) | {"time": ""} == {"time": "", "level": "info", "process": "serve", "message": "ready"}
