"""The parent's side of `engine_child`: starts it, asks, reads answers, ends it."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class EngineFailedError(RuntimeError):
    """The child ended instead of answering; the message holds what it said."""


class EngineProcess:
    """A loaded engine in another process, which sleeps between two questions."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self._process = process
        self._log = log
        self.details = self._answer()

    def ask(self, task: str, **numbers: object) -> dict[str, Any]:
        """Lets it do a task, and waits for the answer.

        Raises:
            EngineFailedError: it ended.
        """
        assert self._process.stdin is not None, "it was started with a pipe"
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"task": task, **numbers}) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "it was started with a pipe"
        line = self._process.stdout.readline()
        if not line:
            raise EngineFailedError(f"our engine ended; it said:\n{self._log.read_text(errors='replace')[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def engine_process(model: Path, *, seed: int, block_size: int | None = None) -> Iterator[EngineProcess]:
    """An engine with this model, ended at the block's end.

    Raises:
        EngineFailedError: it cannot be loaded.
    """
    command = [sys.executable, "-m", "benchmarks.compare.engine_child", str(model), "--seed", str(seed)]
    if block_size is not None:
        command += ["--block-size", str(block_size)]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with (
            log.open("w") as errors,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1
            ) as process,
        ):
            try:
                yield EngineProcess(process, log)
            finally:
                assert process.stdin is not None, "it was started with a pipe"
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
