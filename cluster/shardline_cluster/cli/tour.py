"""What `shardline` says of itself: a short tour of all commands, in groups. Argparse would list them in one heap."""

from collections.abc import Mapping
from typing import Any

from shardline_cluster.cli.flags.secret_arguments import DiscreetParser

_TOUR = """\
usage: shardline COMMAND ...

Serve large language models on many machines; a request that was accepted is never lost.

  shardline serve smollm2:135m               a small model, until Ctrl-C
  shardline chat                             in another terminal: talk with it
  shardline generate "Once upon a time"      or let it continue a text
{groups}
`shardline COMMAND --help` tells the flags of a command. Every flag can also be set in the environment: --max-tokens 64
is SHARDLINE_MAX_TOKENS=64; a flag on the command line goes first. Flags may stand in a file, too: --config FILE.yaml.
"""


class TourParser(DiscreetParser):
    """The parser of the whole command line, whose help is the tour. Commands add their parsers to `commands`."""

    def __init__(self, *, prog: str, groups: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__(prog=prog)
        self._groups = groups
        self.commands: Any = self.add_subparsers(
            dest="command", metavar="COMMAND", required=True, parser_class=DiscreetParser
        )

    def format_help(self) -> str:
        """The tour."""
        # argparse has no public way to list what was added.
        summaries = {action.dest: action.help or "" for action in self.commands._choices_actions}
        return _TOUR.format(groups="".join(_group(title, names, summaries) for title, names in self._groups.items()))


def _group(title: str, names: tuple[str, ...], summaries: Mapping[str, str]) -> str:
    lines = [f"  {name:<11} {summaries[name]}\n" for name in names if name in summaries]
    return f"\n{title}:\n{''.join(lines)}"
