"""Mistakes on the command line are told in two lines, with the flag that was perhaps meant."""

import pytest

from shardline_cluster.cli.command_parser import WRONG_USAGE, CommandParser, unknown_flags


@pytest.fixture
def parser() -> CommandParser:
    parser = CommandParser(prog="shardline test")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--temperature", type=float)
    return parser


def test_a_mistake_is_told_without_a_page_of_flags(parser: CommandParser, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--max-tokens", "many"])

    assert end.value.code == WRONG_USAGE
    assert capsys.readouterr().err == (
        "shardline test: argument --max-tokens: invalid int value: 'many'\nSee `shardline test --help`.\n"
    )


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("--max-token=3", "there is no flag --max-token: did you mean --max-tokens?"),
        ("--temprature", "there is no flag --temprature: did you mean --temperature?"),
        ("--zzz", "there is no flag --zzz"),
        ("upon", "'upon' is one word too many: put quotes around what belongs together"),
    ],
)
def test_a_word_that_nothing_takes_is_told_with_what_was_perhaps_meant(
    parser: CommandParser, word: str, told: str
) -> None:
    assert unknown_flags([word], parser) == told
