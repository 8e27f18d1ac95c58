"""`shardline chat`: a conversation in the terminal, or one answer for a script."""

import argparse
import os
import sys
from typing import Any

from shardline.errors import ShardlineError as ClientError
from shardline_cluster.cli import standard_input
from shardline_cluster.cli.conversations.chat_commands import ChatCommands, ChatEnd
from shardline_cluster.cli.conversations.conversation import Conversation
from shardline_cluster.cli.conversations.input_history import history_file, line_editing
from shardline_cluster.cli.conversations.message_input import read_message
from shardline_cluster.cli.flags.config_file import add_config_flag
from shardline_cluster.cli.flags.flag_names import in_flags
from shardline_cluster.cli.flags.sampling_flags import add_sampling_flags
from shardline_cluster.cli.router_address import add_router_flags, connect
from shardline_cluster.errors import ShardlineError

_DESCRIPTION = """\
Talks with a model. Without MESSAGE it reads one message a line: Ctrl-C stops an answer, Ctrl-D leaves, /help lists what
else one can do. What was said is remembered until you leave. With MESSAGE it prints the one answer and ends.
"""
_WELCOME = "One message a line. Ctrl-C stops an answer, Ctrl-D leaves, /help tells more."
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
    )
    parser.add_argument("message", nargs="?", metavar="MESSAGE", help="say only this, and print the answer")
    parser.add_argument("--system", metavar="TEXT", help="tell the model first how it is to behave")
    add_sampling_flags(parser)
    parser.add_argument(
        "--history",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep what is typed for the next time's arrow keys, in ~/.local/state/shardline (the default)",
    )
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
        return _talk(conversation, arguments)


def _talk(conversation: Conversation, arguments: argparse.Namespace) -> int:
    """One message after the other until the end of input."""
    commands = ChatCommands(conversation, arguments)
    if not standard_input.at_terminal():
        while (message := read_message(standard_input.read_line, prompt="", more="")) is not None:
            if not _answered(message, conversation, commands):
                break
        return 0
    print(_WELCOME, file=sys.stderr)
    path = history_file(os.environ) if arguments.history else None
    with line_editing(path, words=ChatCommands.names()):
        while (message := _typed_message()) is not None:
            if not _answered_at_terminal(message, conversation, commands):
                break
    return 0


def _answered(message: str, conversation: Conversation, commands: ChatCommands) -> bool:
    """Does what a message asks for; False where it ends the talk."""
    try:
        if message.startswith("/") and not message.startswith("//"):
            told = commands.run(message)
            print(told, file=sys.stderr, end="\n" if told else "")
        elif message:
            conversation.answer(message.removeprefix("/") if message.startswith("//") else message)
    except ChatEnd:
        return False
    return True


def _answered_at_terminal(message: str, conversation: Conversation, commands: ChatCommands) -> bool:
    """The same; neither a failed answer nor Ctrl-C ends the talk."""
    try:
        return _answered(message, conversation, commands)
    except KeyboardInterrupt:
        print("(stopped)", file=sys.stderr)
    except (ClientError, ShardlineError) as error:
        print(f"shardline: {in_flags(str(error), vars(commands.arguments))}", file=sys.stderr)
    return True


def _typed_message() -> str | None:
    """The next message; None at the end of input. Ctrl-C at the prompt drops what was begun and tells how to leave."""
    while True:
        try:
            message = read_message(standard_input.read_line, prompt="> ", more=". ")
        except KeyboardInterrupt:
            print("\n(Ctrl-D leaves)", file=sys.stderr)
            continue
        if message is None:
            print()
        return message
