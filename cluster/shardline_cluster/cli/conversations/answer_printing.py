"""Prints a stream's text as it comes; Ctrl-C, or a reader who leaves (`| head`), cancels its request."""

import sys
from collections.abc import Callable

from shardline import Completion, CompletionStream, Tokens
from shardline.errors import ShardlineError
from shardline_cluster.cli.conversations.ctrl_c import interrupted_between_events
from shardline_cluster.cli.token_meter import TokenMeter


def print_answer(stream: CompletionStream, meter: TokenMeter) -> Completion:
    """Prints the text of a stream with one output, and a line's end after it.

    Raises:
        KeyboardInterrupt, BrokenPipeError: nobody wants the rest; the request is cancelled.
        ShardlineError: the stream broke, or the request did not end well.
    """
    line = _Line()
    try:
        completion = read_answer(stream, meter, show=line.show)
    except BaseException:
        line.end_if_begun()
        raise
    line.end()
    return completion


class _Line:
    """The line on standard output that an answer makes. A request that was refused leaves none."""

    def __init__(self) -> None:
        self._begun = False

    def show(self, text: str) -> None:
        """Adds some of the answer."""
        self._begun = self._begun or bool(text)
        print(text, end="", flush=True)

    def end(self) -> None:
        """Ends the line."""
        print(flush=True)

    def end_if_begun(self) -> None:
        """Ends it, where there is something in it."""
        if self._begun:
            self.end()


def read_answer(
    stream: CompletionStream, meter: TokenMeter, *, show: Callable[[str], None] | None = None
) -> Completion:
    """Reads a stream to its end; `show` gets the text as it comes. Raises as `print_answer`."""
    try:
        with interrupted_between_events(stream):
            for event in stream:
                meter.watch(event)
                if show is not None and isinstance(event, Tokens):
                    show(event.text)
    except (KeyboardInterrupt, BrokenPipeError):
        _cancel(stream)
        raise
    return stream.result()


def _cancel(stream: CompletionStream) -> None:
    try:
        stream.cancel()
    except ShardlineError as error:
        print(f"shardline: the request could not be cancelled: {error}", file=sys.stderr)
