'''Messages as a person types them: a line, or several between two lines of """, or where all but the last end in \\.'''

from collections.abc import Callable

_FENCE = '"""'

ReadLine = Callable[[str], str | None]


def read_message(read_line: ReadLine, *, prompt: str, more: str) -> str | None:
    """The next message without the space around it; None at the end of input.

    `read_line` takes a prompt and returns a line, or None at the end; `more` is the prompt of further lines. What was
    begun at the end of input counts as it is.
    """
    line = read_line(prompt)
    if line is None:
        return None
    if line.startswith(_FENCE):
        return _fenced(line.removeprefix(_FENCE), read_line, more)
    lines = []
    while line.endswith("\\"):
        lines.append(line.removesuffix("\\"))
        following = read_line(more)
        if following is None:
            return "\n".join(lines).strip()
        line = following
    return "\n".join([*lines, line]).strip()


def _fenced(first: str, read_line: ReadLine, more: str) -> str:
    lines: list[str] = []
    line: str | None = first
    while line is not None:
        if line.rstrip().endswith(_FENCE):
            lines.append(line.rstrip().removesuffix(_FENCE))
            break
        lines.append(line)
        line = read_line(more)
    return "\n".join(lines).strip()
