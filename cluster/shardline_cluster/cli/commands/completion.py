"""`shardline completion SHELL`: a script by which a shell completes commands and flags."""

import argparse
from typing import Any

from shardline_cluster.cli.command_line import command_line
from shardline_cluster.cli.command_tree import command_tree
from shardline_cluster.cli.completion_scripts import SCRIPTS

_DESCRIPTION = """\
Prints a script by which a shell completes commands, flags and their values with TAB.
"""
_EPILOG = """\
for this shell and for every one to come:
  bash:  source <(shardline completion bash)      in ~/.bashrc
  zsh:   source <(shardline completion zsh)       in ~/.zshrc, behind compinit
  fish:  shardline completion fish > ~/.config/fish/completions/shardline.fish
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its argument."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "completion",
        help="let a shell complete commands and flags",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("shell", choices=sorted(SCRIPTS), help="the shell that is to read it")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Prints the script."""
    tree = command_tree(command_line().parser, name="shardline")
    print(SCRIPTS[arguments.shell](tree), end="")
    return 0
