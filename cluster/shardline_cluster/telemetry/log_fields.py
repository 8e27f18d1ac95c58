"""What a log line is about: fields beside its words, for whoever filters a thousand lines for one request.

A call's task sets the request that it works for once; whatever is logged in it, and in tasks that it starts, is about
that request. A line can also bring fields of its own: `log.info("…", extra={"request_id": …})`.
"""

import logging
from collections.abc import Mapping
from contextvars import ContextVar

REQUEST_ID = "request_id"
FIELDS = (REQUEST_ID, "replica", "lane", "model")

# Each task has its own value: this is no state of the module.
_request_id: ContextVar[str] = ContextVar("shardline_request_id", default="")


def log_as_about(request_id: str) -> None:
    """From here on this task works for a request."""
    _request_id.set(request_id)


def fields_of(record: logging.LogRecord, constant: Mapping[str, str]) -> dict[str, str]:
    """What is known of a line: the process's fields, the task's request, the line's own fields, each over the last."""
    known = dict(constant)
    if request_id := _request_id.get():
        known[REQUEST_ID] = request_id
    known |= {name: str(value) for name in FIELDS if (value := getattr(record, name, None))}
    return known
