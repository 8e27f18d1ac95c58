"""The usage line of a command, and how its subcommands get one."""

import argparse

from shardline_cluster.cli.help_format import make_readable


def a_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo", description="Does\n  100%% of it.")
    parser.add_argument("model", nargs="?", metavar="MODEL")
    parser.add_argument("--many", help="flags, with words that are told at once")
    actions = parser.add_subparsers(metavar="ACTION")
    actions.add_parser("shell").add_argument("shell", choices=["bash", "zsh"])
    actions.add_parser("files").add_argument("files", nargs="+", metavar="FILE")
    return parser


def test_the_usage_names_arguments_and_leaves_flags_to_the_list() -> None:
    parser = a_parser()

    make_readable(parser)

    lines = parser.format_help().splitlines()
    assert lines[0] == "usage: demo [MODEL] ACTION ... [flags]"
    assert "--many MANY flags, with words that are told at once" in [" ".join(line.split()) for line in lines]


def test_subcommands_get_the_same_form() -> None:
    parser = a_parser()
    make_readable(parser)
    (action,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]

    usages = {name: sub.format_usage().strip() for name, sub in action.choices.items()}

    assert usages["shell"].endswith("shell {bash,zsh} [flags]")
    assert usages["files"].endswith("files FILE [FILE ...] [flags]")
