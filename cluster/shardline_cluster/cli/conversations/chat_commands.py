"""What one can say in a chat that is not meant for the model: lines that begin with a slash."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from shardline_cluster.cli.conversations.conversation import Conversation
from shardline_cluster.cli.flags.sampling_flags import add_sampling_flags
from shardline_cluster.errors import InvalidRequestError

HELP = '''\
/help                   this list
/system TEXT            tell the model how it is to behave; without TEXT: nothing any more
/set NAME VALUE         a flag of `shardline chat`, such as /set temperature 0.7; without VALUE: the model's own
/show                   what is set, and how much was said
/retry                  say the last message again, in place of its answer
/clear                  forget what was said
/save FILE, /load FILE  keep the conversation, and go on with it another day
/bye                    leave (or Ctrl-D)

Several lines are one message between two lines of """, or where each but the last ends in \\.
A message that begins with a slash is written with two: //etc is a folder.'''


class ChatEnd(Exception):  # noqa: N818 -- nothing went wrong
    """The person wants to leave."""


@dataclass(frozen=True, slots=True)
class ChatCommands:
    """The commands of one talk. `arguments` are those of `shardline chat`; /set changes them."""

    conversation: Conversation
    arguments: argparse.Namespace

    def run(self, line: str) -> str:
        """Does what a line says that begins with a slash; returns what is to be printed.

        Raises:
            ChatEnd: the talk is over.
            InvalidRequestError: there is no such command, or it cannot be done.
            ShardlineError, KeyboardInterrupt: of the answer, where one is asked for.
        """
        name, _, rest = line.removeprefix("/").partition(" ")
        command = self._commands().get(name)
        if command is None:
            raise InvalidRequestError(
                f"there is no command /{name}: /help lists them, and a message that begins with a slash is written "
                f"with two, as in /{line}",
                field="command",
            )
        return command(rest.strip())

    @staticmethod
    def names() -> tuple[str, ...]:
        """All of them, for completion."""
        return ("/bye", "/clear", "/help", "/load", "/retry", "/save", "/set", "/show", "/system")

    def _commands(self) -> Mapping[str, Callable[[str], str]]:
        return {
            "help": lambda _: HELP,
            "system": self._instruct,
            "set": self._set,
            "show": lambda _: self._show(),
            "retry": lambda _: self._retry(),
            "clear": lambda _: self._clear(),
            "save": self._save,
            "load": self._load,
            **dict.fromkeys(("bye", "exit", "quit"), self._leave),
        }

    def _leave(self, _: str) -> str:
        raise ChatEnd

    def _instruct(self, text: str) -> str:
        self.conversation.instruct(text)
        return "(the model is told so from the next message on)" if text else "(the model is told nothing)"

    def _clear(self) -> str:
        self.conversation.clear()
        return "(forgotten)"

    def _retry(self) -> str:
        self.conversation.retry()
        return ""

    def _save(self, name: str) -> str:
        path = _path(name, "/save")
        self.conversation.save(path)
        return f"(saved to {path})"

    def _load(self, name: str) -> str:
        path = _path(name, "/load")
        self.conversation.load(path)
        return f"({len(self.conversation.turns) // 2} answers from {path})"

    def _set(self, text: str) -> str:
        name, _, value = text.partition(" ")
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        add_sampling_flags(parser)
        flags = {option.removeprefix("--"): action for action in parser._actions for option in action.option_strings}
        name = name.removeprefix("--").replace("_", "-")
        action = flags.get(name)
        if action is None:
            raise InvalidRequestError(f"nothing is called {name!r}: there are {', '.join(flags)}", field="set")
        words = _switch_words(name, value) if action.nargs == 0 else [f"--{name}={value.strip()}"] if value else []
        setattr(self.arguments, action.dest, _parsed(parser, words, action))
        return f"({name} is {getattr(self.arguments, action.dest)})" if words else f"({name} is the model's own)"

    def _show(self) -> str:
        conversation = self.conversation
        parser = argparse.ArgumentParser(add_help=False)
        add_sampling_flags(parser)
        settings = [
            f"{action.option_strings[0].removeprefix('--')} {value}"
            for action in parser._actions
            if (value := getattr(self.arguments, action.dest)) not in (None, "")
        ]
        return "\n".join(
            (
                f"set: {', '.join(settings) or 'nothing, the model decides'}",
                f"system: {conversation.system or 'nothing'}",
                f"said: {len(conversation.turns) // 2} messages, {sum(len(t.content) for t in conversation.turns)} "
                "characters with their answers",
            )
        )


def _switch_words(name: str, value: str) -> list[str]:
    if value not in ("", "on", "off"):
        raise InvalidRequestError(f"{name} is a switch: write /set {name} on, or off", field="set")
    return [] if value == "off" else [f"--{name}"]


def _parsed(parser: argparse.ArgumentParser, words: list[str], action: argparse.Action) -> object:
    """The value of one flag, checked as on the command line."""
    try:
        return getattr(parser.parse_args(words), action.dest)
    except argparse.ArgumentError as error:
        raise InvalidRequestError(error.message, field="set") from None


def _path(name: str, command: str) -> Path:
    if not name:
        raise InvalidRequestError(f"{command} wants the name of a file", field="file")
    return Path(name).expanduser()
