"""`shardline chat`: a conversation in the terminal, or one answer for a script."""

import argparse
import importlib
import sys
from contextlib import suppress
from typing import Any

from shardline import ChatMessage, Client
from shardline.errors import ShardlineError
from shardline_cluster.cli import standard_input
from shardline_cluster.cli.answer_printing import print_answer
from shardline_cluster.cli.config_file import add_config_flag
from shardline_cluster.cli.router_address import add_router_flags, connect
from shardline_cluster.cli.sampling_flags import add_sampling_flags, sampling_options
from shardline_cluster.cli.token_meter import TokenMeter

_DESCRIPTION = """\
Talks with a model. Without MESSAGE it reads one message a line: Ctrl-C stops an answer, Ctrl-D leaves. What was said
is remembered until you leave. With MESSAGE it prints the one answer and ends.
"""
_EPILOG = """\
examples:
  shardline chat
  shardline chat "Why is the sky blue?" --max-tokens 200
  shardline chat --system "You answer in rhymes." --temperature 0.7
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "chat",
        help="talk with a model",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("message", nargs="?", metavar="MESSAGE", help="say only this, and print the answer")
    parser.add_argument("--system", metavar="TEXT", help="tell the model first how it is to behave")
    add_sampling_flags(parser)
    parser.add_argument("--stats", action="store_true", help="print how fast it went to standard error")
    add_router_flags(parser)
    add_config_flag(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Talks until there is nothing more to answer."""
    with connect(arguments) as client:
        conversation = Conversation(client, arguments)
        if arguments.message is not None:
            conversation.answer(arguments.message)
            return 0
        return _talk(conversation)


class Conversation:
    """What was said so far. A message whose answer was stopped or failed is taken back: it can be said again."""

    def __init__(self, client: Client, arguments: argparse.Namespace) -> None:
        self._client = client
        self._arguments = arguments
        self._messages = [ChatMessage("system", arguments.system)] if arguments.system else []

    def answer(self, message: str) -> None:
        """Prints the answer to a message as it comes, and remembers both.

        Raises:
            KeyboardInterrupt: the answer was stopped by Ctrl-C; its request is cancelled.
            ShardlineError: there is no answer, or only a part.
        """
        turn = [*self._messages, ChatMessage("user", message)]
        options = sampling_options(self._arguments)
        meter = TokenMeter()
        with self._client.stream_chat(turn, model=self._arguments.model, **options) as stream:
            text = print_answer(stream, meter).text
        self._messages = [*turn, ChatMessage("assistant", text)]
        if self._arguments.stats:
            print(meter.summary(), file=sys.stderr)


def _talk(conversation: Conversation) -> int:
    """One message a line until the end of input. At a terminal neither a failed answer nor Ctrl-C ends the talk."""
    at_terminal = standard_input.at_terminal()
    if at_terminal:
        _welcome()
    while True:
        message = _next_message(at_terminal=at_terminal)
        if message is None:
            return 0
        if not message:
            continue
        try:
            conversation.answer(message)
        except KeyboardInterrupt:
            if not at_terminal:
                raise
            print("(stopped)", file=sys.stderr)
        except ShardlineError as error:
            if not at_terminal:
                raise
            print(f"shardline: {error}", file=sys.stderr)


def _welcome() -> None:
    with suppress(ModuleNotFoundError):  # importing it gives `input` arrow keys and a history; some Pythons lack it
        importlib.import_module("readline")
    print("One message a line. Ctrl-C stops an answer, Ctrl-D leaves.", file=sys.stderr)


def _next_message(*, at_terminal: bool) -> str | None:
    """The next line; None at the end of input. Ctrl-C at the prompt clears the line and tells how to leave."""
    while True:
        try:
            message = standard_input.read_line("> " if at_terminal else "")
        except KeyboardInterrupt:
            if not at_terminal:
                raise
            print("\n(Ctrl-D leaves)", file=sys.stderr)
            continue
        if message is None and at_terminal:
            print()
        return message
