"""Starts, asks and ends the process that renders one chat template (see template_child for what it does)."""

import json
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shardline_workers.text.chat_template import ChatTemplateError

_CHILD = Path(__file__).with_name("template_child.py")
# What the child needs to find Python and jinja2. The rest, passwords in URLs for one, is not its business.
_PASSED_VARIABLES = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ", "LANG", "LC_ALL")
_START_LIMIT_S = 60.0  # to start Python and import jinja2 on a machine with no free core
_GRACE_S = 10.0  # by the clock, beyond the CPU time that the child itself is stopped at, before it is killed from here
_READ_BYTES = 1 << 16


class TemplateProcess:
    """One child. Not thread-safe. It ends with `close`, with this object, or with this process, however that ends."""

    def __init__(self, setup: Mapping[str, Any], *, time_limit_s: float) -> None:
        """Starts it and waits until the template is compiled.

        Raises:
            ChatTemplateError: it does not compile, or not in time.
        """
        self._time_limit_s = time_limit_s
        # -P: the folder of the script must not shadow the standard library. A session of its own: Ctrl-C ends the
        # parent, which may still have requests to finish.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _PASSED_VARIABLES if name in os.environ},
            start_new_session=True,
        )
        self._finalizer = weakref.finalize(self, _end, self._process)
        assert self._process.stdin is not None, "started with a pipe"
        os.set_blocking(self._process.stdin.fileno(), False)  # or a child that reads nothing would hold us for ever
        self.ask({**setup, "time_limit_s": time_limit_s}, extra_s=_START_LIMIT_S)

    @property
    def alive(self) -> bool:
        """False once it has ended, by itself or by somebody's hand."""
        return self._process.poll() is None

    def ask(self, request: Mapping[str, Any], *, extra_s: float = 0.0) -> dict[str, Any]:
        """Sends one request and returns the reply. After anything but a reply the process is ended.

        Raises:
            ChatTemplateError: the child says so, or ended, or does not answer.
        """
        try:
            reply = self._exchange(json.dumps(request).encode() + b"\n", time.monotonic() + self._limit_s(extra_s))
        except BaseException:
            self.close()
            raise
        if "error" in reply:
            raise ChatTemplateError(f"the chat template failed: {reply['error']}")
        return reply

    def close(self) -> None:
        """Ends the process. May be called twice."""
        self._finalizer()

    def _limit_s(self, extra_s: float) -> float:
        return self._time_limit_s + _GRACE_S + extra_s

    def _exchange(self, line: bytes, deadline: float) -> dict[str, Any]:
        self._write_line(line, deadline)
        reply: dict[str, Any] = json.loads(self._read_line(deadline))
        return reply

    def _write_line(self, line: bytes, deadline: float) -> None:
        assert self._process.stdin is not None, "started with a pipe"
        requests = self._process.stdin.fileno()
        left = memoryview(line)
        try:
            while left:
                _await(requests, select.POLLOUT, deadline)
                left = left[os.write(requests, left) :]
        except BrokenPipeError:
            raise self._ended() from None

    def _read_line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None, "started with a pipe"
        replies = self._process.stdout.fileno()
        pieces: list[bytes] = []
        while not pieces or not pieces[-1].endswith(b"\n"):
            _await(replies, select.POLLIN, deadline)
            piece = os.read(replies, _READ_BYTES)
            if not piece:
                raise self._ended()
            pieces.append(piece)
        return b"".join(pieces)

    def _ended(self) -> ChatTemplateError:
        """Why there is no reply, told by how the process ended."""
        try:
            code = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            return ChatTemplateError("the chat template's process closed its output; it was ended")
        if code == -signal.SIGPROF:
            limit = f"its limit of {self._time_limit_s:g} s of CPU time"
            return ChatTemplateError(f"the chat template took longer than {limit} and was stopped: look for its loops")
        return ChatTemplateError(f"the chat template's process ended with code {code}, perhaps for want of memory")


def _await(pipe: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(pipe, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise ChatTemplateError("the chat template's process does not answer; it was ended")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills and reaps; nothing is lost with it."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:  # bytes that nobody will read
                continue
