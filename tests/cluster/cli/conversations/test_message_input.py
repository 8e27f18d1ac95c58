"""One message from one line or several."""

from collections.abc import Sequence

import pytest

from shardline_cluster.cli.conversations.message_input import read_message


def read_all(*lines: str) -> tuple[list[str], list[str]]:
    """The messages in these lines, and the prompts that were shown."""
    typed, prompts, messages = iter(lines), list[str](), list[str]()

    def read_line(prompt: str) -> str | None:
        prompts.append(prompt)
        return next(typed, None)

    while (message := read_message(read_line, prompt="> ", more=". ")) is not None:
        messages.append(message)
    return messages, prompts


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        (["one", " two "], ["one", "two"]),
        (["one\\", "two\\", "three", "four"], ["one\ntwo\nthree", "four"]),
        (['"""one', "  two", 'three"""', "four"], ["one\n  two\nthree", "four"]),
        (['"""', "one", "", "two", '"""'], ["one\n\ntwo"]),
        (['"""one"""'], ["one"]),
        (['"""', "back\\", 'slash"""'], ["back\\\nslash"]),
        (['"""never', "closed"], ["never\nclosed"]),
        (["never\\"], ["never"]),
        (["", "\\", ""], ["", ""]),
        (['say """ in the middle'], ['say """ in the middle']),
    ],
)
def test_lines_become_messages(lines: Sequence[str], messages: list[str]) -> None:
    assert read_all(*lines)[0] == messages


def test_further_lines_have_another_prompt() -> None:
    assert read_all("a\\", "b")[1] == ["> ", ". ", "> "]
