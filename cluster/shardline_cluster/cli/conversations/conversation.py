"""What was said in a `shardline chat` so far, and how it is kept in a file."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from shardline import ChatMessage, Client
from shardline_cluster.cli.conversations.answer_printing import print_answer
from shardline_cluster.cli.flags.sampling_flags import sampling_options
from shardline_cluster.cli.token_meter import TokenMeter
from shardline_cluster.errors import InvalidRequestError

_FORMAT = "shardline chat"
_MAX_FILE_BYTES = 16 << 20


class Conversation:
    """The turns of one talk. A message whose answer was stopped or failed is taken back: it can be said again."""

    def __init__(self, client: Client, arguments: argparse.Namespace) -> None:
        """`arguments` are those of the command; what changes in them counts from the next answer on."""
        self._client = client
        self._arguments = arguments
        self._system = arguments.system or ""
        self._turns: list[ChatMessage] = []
        self._last_message: str | None = None

    @property
    def system(self) -> str:
        """What the model is told first; empty: nothing."""
        return self._system

    @property
    def turns(self) -> tuple[ChatMessage, ...]:
        """Messages and answers, in turn."""
        return tuple(self._turns)

    def answer(self, message: str) -> None:
        """Prints the answer to a message as it comes, and remembers both.

        Raises:
            KeyboardInterrupt: the answer was stopped by Ctrl-C; its request is cancelled.
            ShardlineError: there is no answer, or only a part.
        """
        self._last_message = message
        turns = [*self._turns, ChatMessage("user", message)]
        options = sampling_options(self._arguments)
        meter = TokenMeter()
        with self._client.stream_chat(self._opening() + turns, model=self._arguments.model, **options) as stream:
            text = print_answer(stream, meter).text
        self._turns = [*turns, ChatMessage("assistant", text)]
        if self._arguments.stats:
            print(meter.summary(), file=sys.stderr)

    def retry(self) -> None:
        """Says the last message again, in place of its answer. Raises as `answer`.

        Raises:
            InvalidRequestError: nothing was said yet.
        """
        if self._last_message is None:
            raise InvalidRequestError("nothing was said yet that could be said again", field="retry")
        kept, message = self._turns, self._last_message
        if kept and kept[-2].content == message:
            self._turns = kept[:-2]
        try:
            self.answer(message)
        except BaseException:
            self._turns = kept  # the old answer stands
            raise

    def clear(self) -> None:
        """Forgets what was said, but not how the model is to behave."""
        self._turns, self._last_message = [], None

    def instruct(self, text: str) -> None:
        """Tells the model from now on how it is to behave; empty: nothing."""
        self._system = text

    def save(self, path: Path) -> None:
        """Writes the conversation down, as JSON.

        Raises:
            InvalidRequestError: the file cannot be written, or holds something else.
        """
        try:
            if path.exists() and path.stat().st_size and not _is_ours(path):
                raise _wrong_file(path, "it holds something else: choose another name")
            messages = [{"role": turn.role, "content": turn.content} for turn in self._turns]
            content = {"format": _FORMAT, "system": self._system, "messages": messages}
            path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise _wrong_file(path, error.strerror or str(error)) from error

    def load(self, path: Path) -> None:
        """Goes on with a conversation that was saved.

        Raises:
            InvalidRequestError: the file cannot be read, or is no conversation.
        """
        try:
            content = _read(path)
        except OSError as error:
            raise _wrong_file(path, error.strerror or str(error)) from error
        match content:
            case {"format": str(form), "system": str(system), "messages": [*messages]} if form == _FORMAT:
                turns = [_turn(path, message) for message in messages]
            case _:
                raise _wrong_file(path, "it is no conversation that /save wrote")
        if [turn.role for turn in turns] != ["user", "assistant"] * (len(turns) // 2):
            raise _wrong_file(path, "its messages are not in turn: user, assistant, user …")
        self._system, self._turns = system, turns
        self._last_message = turns[-2].content if turns else None

    def _opening(self) -> list[ChatMessage]:
        return [ChatMessage("system", self._system)] if self._system else []


def _turn(path: Path, message: Any) -> ChatMessage:
    match message:
        case {"role": str(role), "content": str(content)}:
            return ChatMessage(role, content)
    raise _wrong_file(path, "a message of it has no role and content")


def _is_ours(path: Path) -> bool:
    content = _read(path)
    return isinstance(content, dict) and content.get("format") == _FORMAT


def _read(path: Path) -> Any:
    """What the JSON in a file says; None where it is none."""
    with path.open("rb") as file:
        content = file.read(_MAX_FILE_BYTES + 1)
    try:
        return json.loads(content) if len(content) <= _MAX_FILE_BYTES else None
    except (ValueError, RecursionError):
        return None


def _wrong_file(path: Path, reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"{path}: {reason}", field="file")
