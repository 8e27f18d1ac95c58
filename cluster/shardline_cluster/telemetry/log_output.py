"""One way in which every process logs: to standard error, a line for people or a JSON object a line.

    {"time": "2026-11-24T14:00:00.123Z", "level": "warning", "process": "replica", "message": "…", "logger": "…",
     "model": "…", "lane": "…", "replica": "…", "request_id": "…", "exception": "Traceback …"}

Everything goes this way: libraries' logs (gRPC, asyncio, Redis), warnings, and exceptions that nobody caught. Prompts
and outputs never do: no call of ours hands them to a logger.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType

from shardline_cluster.telemetry.log_fields import FIELDS, REQUEST_ID, fields_of
from shardline_cluster.telemetry.telemetry_config import LogFormat, TelemetryConfig

log = logging.getLogger(__name__)


class HumanFormat(logging.Formatter):
    """`TIME NAME LEVEL MESSAGE`, and the request where there is one."""

    def __init__(self, name: str, constant: Mapping[str, str]) -> None:
        super().__init__(f"%(asctime)s {name} %(levelname)s %(message)s")
        self._constant = constant

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is the library's
        """The line before its traceback."""
        line = super().formatMessage(record)
        request_id = fields_of(record, self._constant).get(REQUEST_ID, "")
        return f"{line} [{request_id}]" if request_id and request_id not in line else line


class JsonFormat(logging.Formatter):
    """One object, one line."""

    def __init__(self, process: str, constant: Mapping[str, str]) -> None:
        super().__init__()
        self._process = process
        self._constant = constant

    def format(self, record: logging.LogRecord) -> str:
        """The whole line."""
        told = {
            "time": _instant(record.created),
            "level": record.levelname.lower(),
            "process": self._process,
            "message": record.getMessage(),
            "logger": record.name,
            **fields_of(record, self._constant),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def set_up_logging(
    config: TelemetryConfig, process: str, *, name: str = "", fields: Mapping[str, str] | None = None
) -> None:
    """Sets this process's logging up, in place of whatever a library has set up before.

    Args:
        config: the format, and the least grave level.
        process: which kind of process this is.
        name: stands in its place in lines for people.
        fields: that every line has.
    """
    constant = {field: value for field, value in (fields or {}).items() if field in FIELDS}
    handler = logging.StreamHandler(sys.stderr)
    if config.log_format is LogFormat.JSON:
        handler.setFormatter(JsonFormat(process, constant))
        # gRPC's core, which is not Python, writes lines of its own; what matters of them comes as errors of calls.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    else:
        handler.setFormatter(HumanFormat(name or process, constant))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.log_level.value.upper())
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def last_words(text: str, log_format: LogFormat) -> None:
    """Why this process ends, as the last line of its log: plain for people, since others quote it."""
    if log_format is LogFormat.JSON:
        log.critical("%s", text)
    else:
        print(text, file=sys.stderr)


def message_of(line: str) -> str:
    """The message of a log line, whichever format it has: of one for people all of it."""
    if line.startswith("{"):
        with suppress(ValueError):
            told = json.loads(line)
            if isinstance(told, dict) and isinstance(told.get("message"), str):
                return str(told["message"])
    return line


def teller(log_format: LogFormat, process: str, write: Callable[[str], None]) -> Callable[[str], None]:
    """Tells an operator what happens, line by line: as it is, or as JSON like everybody else's log."""
    if log_format is LogFormat.HUMAN:
        return write

    def tell(line: str) -> None:
        told = {"time": _instant(time.time()), "level": "info", "process": process, "message": line}
        write(json.dumps(told, ensure_ascii=False))

    return tell


def _instant(seconds: float) -> str:
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03d}Z"


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    log.critical("this process ends: nobody caught a %s", kind.__name__, exc_info=(kind, error, trace))


def _log_uncaught_in_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is None:
        return
    name = failed.thread.name if failed.thread is not None else "unknown"
    trouble = (failed.exc_type, failed.exc_value, failed.exc_traceback)
    log.error("the thread %s ended: nobody caught a %s", name, failed.exc_type.__name__, exc_info=trouble)
