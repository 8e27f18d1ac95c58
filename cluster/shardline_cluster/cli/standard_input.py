"""Text from standard input, which may be a terminal, a pipe, closed, or no text at all."""

import sys

from shardline_cluster.errors import InvalidRequestError


def at_terminal() -> bool:
    """Whether a person types."""
    return sys.stdin is not None and sys.stdin.isatty()


def is_piped() -> bool:
    """Whether there is one, and no person behind it."""
    return sys.stdin is not None and not sys.stdin.isatty()


def read_all() -> str:
    """Everything up to its end.

    Raises:
        InvalidRequestError: it is no text.
    """
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise _no_text(error) from None


def read_line(prompt: str) -> str | None:
    """The next line as it is, without its end; None at the end of input, or where there is none.

    Raises:
        InvalidRequestError: it is no text.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    if sys.stdin is None:
        return None
    try:
        return input(prompt)
    except EOFError:
        return None
    except UnicodeDecodeError as error:
        raise _no_text(error) from None


def _no_text(error: UnicodeDecodeError) -> InvalidRequestError:
    return InvalidRequestError(f"standard input is no {error.encoding} text ({error.reason})", field="prompt")
