"""Lines that begin with a slash, and conversations in files."""

import argparse
import json
from pathlib import Path

import pytest

from shardline import Client
from shardline_cluster.cli.conversations.chat_commands import HELP, ChatCommands, ChatEnd
from shardline_cluster.cli.conversations.conversation import Conversation
from shardline_cluster.cli.flags.sampling_flags import add_sampling_flags
from shardline_cluster.errors import InvalidRequestError
from tests.cluster.client.conftest import StartRouter
from tests.cluster.client.scripted_router import ScriptedRouter

TEXT = "Hello, world!"


@pytest.fixture
def router(start_router: StartRouter) -> ScriptedRouter:
    return start_router()


@pytest.fixture
def commands(router: ScriptedRouter) -> ChatCommands:
    parser = argparse.ArgumentParser()
    add_sampling_flags(parser)
    arguments = parser.parse_args(["--max-tokens", "9"], argparse.Namespace(system="Be kind.", stats=False))
    return ChatCommands(Conversation(Client(router.address), arguments), arguments)


def test_all_commands_are_in_the_help(commands: ChatCommands) -> None:
    assert commands.run("/help") == HELP
    assert all(name in HELP for name in ChatCommands.names())


@pytest.mark.parametrize("line", ["/bye", "/exit", "/quit"])
def test_there_are_ways_to_leave(line: str, commands: ChatCommands) -> None:
    with pytest.raises(ChatEnd):
        commands.run(line)


@pytest.mark.parametrize(
    ("line", "flag", "value"),
    [
        ("/set temperature 0.7", "temperature", 0.7),
        ("/set --top_k 5", "top_k", 5),
        ("/set stop The end", "stop", ["The end"]),
        ("/set logit-bias 7=-100", "logit_bias", [(7, -100.0)]),
        ("/set ignore-eos", "ignore_eos", True),
        ("/set ignore-eos off", "ignore_eos", None),
        ("/set max-tokens", "max_tokens", None),
        ("/set model other", "model", "other"),
        ("/set model", "model", ""),
    ],
)
def test_set_takes_every_flag_of_choosing_tokens(line: str, flag: str, value: object, commands: ChatCommands) -> None:
    commands.run(line)

    assert getattr(commands.arguments, flag) == value


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("/set", "nothing is called ''"),
        ("/set heat 7", "nothing is called 'heat': there are model, max-tokens"),
        ("/set temperature hot", "'hot' is not a number"),
        ("/set temperature 99", "99 is out of bounds"),
        ("/set ignore-eos maybe", "ignore-eos is a switch"),
        ("/retry", "nothing was said yet"),
        ("/save", "/save wants the name of a file"),
        ("/load /nowhere/x.json", "/nowhere/x.json: No such file or directory"),
        ("/", "there is no command /:"),
    ],
)
def test_what_cannot_be_done_is_told_and_changes_nothing(line: str, told: str, commands: ChatCommands) -> None:
    before = dict(vars(commands.arguments))

    with pytest.raises(InvalidRequestError) as error:
        commands.run(line)

    assert told in str(error.value)
    assert vars(commands.arguments) == before


def test_show_tells_settings_system_and_how_much_was_said(commands: ChatCommands) -> None:
    commands.conversation.answer("Hi")

    assert (
        commands.run("/show")
        == "set: max-tokens 9\nsystem: Be kind.\nsaid: 1 messages, 15 characters with their answers"
    )


def test_a_conversation_that_is_saved_goes_on_elsewhere(
    commands: ChatCommands, router: ScriptedRouter, tmp_path: Path
) -> None:
    commands.conversation.answer("Hi")
    commands.run(f"/save {tmp_path}/talk one.json")
    commands.run("/clear")
    commands.run("/system")

    told = commands.run(f"/load {tmp_path}/talk one.json")
    commands.run("/retry")

    assert told == f"(1 answers from {tmp_path}/talk one.json)"
    messages = router.calls[-1][1].chat.messages
    assert [(message.role, message.content) for message in messages] == [("system", "Be kind."), ("user", "Hi")]


def test_a_file_of_ours_is_written_over_and_no_other(commands: ChatCommands, tmp_path: Path) -> None:
    ours, other = tmp_path / "talk.json", tmp_path / "notes.txt"
    other.write_text("my notes")
    commands.run(f"/save {ours}")
    commands.run("/system Be brief.")

    commands.run(f"/save {ours}")
    with pytest.raises(InvalidRequestError, match="it holds something else"):
        commands.run(f"/save {other}")

    assert json.loads(ours.read_text())["system"] == "Be brief."
    assert other.read_text() == "my notes"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("no JSON", "it is no conversation"),
        ("[1]", "it is no conversation"),
        ('{"format": "shardline chat", "system": "", "messages": [1]}', "has no role and content"),
        (
            '{"format": "shardline chat", "system": "", "messages": [{"role": "user", "content": "x"}]}',
            "its messages are not in turn",
        ),
    ],
)
def test_a_file_that_is_no_conversation_is_refused(
    content: str, told: str, commands: ChatCommands, tmp_path: Path
) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)

    with pytest.raises(InvalidRequestError, match=told):
        commands.run(f"/load {path}")

    assert commands.conversation.system == "Be kind."
