"""Prints a stream's text as it comes; Ctrl-C, or a reader who leaves (`| head`), cancels its request."""

import sys

from shardline import Completion, CompletionStream, Tokens
from shardline.errors import ShardlineError
from shardline_cluster.cli.token_meter import TokenMeter


def print_answer(stream: CompletionStream, meter: TokenMeter) -> Completion:
    """Prints the text of a stream with one output, and a line's end after it.

    Raises:
        KeyboardInterrupt, BrokenPipeError: nobody wants the rest; the request is cancelled.
        ShardlineError: the stream broke, or the request did not end well.
    """
    try:
        return read_answer(stream, meter, echo=True)
    finally:
        print(flush=True)


def read_answer(stream: CompletionStream, meter: TokenMeter, *, echo: bool = False) -> Completion:
    """Reads a stream to its end. Raises as `print_answer`."""
    try:
        for event in stream:
            meter.watch(event)
            if echo and isinstance(event, Tokens):
                print(event.text, end="", flush=True)
    except (KeyboardInterrupt, BrokenPipeError):
        _cancel(stream)
        raise
    return stream.result()


def _cancel(stream: CompletionStream) -> None:
    try:
        stream.cancel()
    except ShardlineError as error:
        print(f"shardline: the request could not be cancelled: {error}", file=sys.stderr)
