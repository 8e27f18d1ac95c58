"""Flags from a file: `--config FILE.yaml`, whose keys are the names of the command's flags without the dashes.

    model: hf:HuggingFaceTB/SmolLM2-135M-Instruct
    grpc-port: 50051
    enable-prefix-caching: false
    endpoint: [10.0.0.1:50051, 10.0.0.2:50051]      # a flag that may be repeated
    models:                                         # where the command knows such a list, see FileList
      - model: smollm2:135m
        replicas: 2

Every mistake is told with file, line and key. What stands in the file goes behind the environment and the command line.
"""

import argparse
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shardline_cluster.errors import ConfigurationError

CONFIG_FLAG = "--config"
_MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One key of a file. Scalars are the text that stands there and the type that YAML takes it for."""

    file: Path
    line: int  # counted from 1
    key: str
    scalars: tuple[tuple[str, str], ...]  # (text, type: str, int, float, bool, null or another one)
    is_list: bool
    entries: "tuple[tuple[ConfigEntry, ...], ...]" = ()  # keys of each element, where the value is a list of such

    def refusal(self, reason: str) -> ConfigurationError:
        """The error that tells where."""
        return ConfigurationError(f"{self.file}:{self.line}: {self.key}: {reason}")


@dataclass(frozen=True, slots=True)
class FileList:
    """A list that only a file can hold, as the default of a command's argument: each element sets some flags anew."""

    flags: frozenset[str]  # that an element may set, without dashes
    elements: tuple[Mapping[str, Any], ...] = ()  # argument → value


def add_config_flag(parser: argparse.ArgumentParser) -> None:
    """Adds the flag to a command."""
    parser.add_argument(
        CONFIG_FLAG,
        metavar="FILE.yaml",
        help="take flags from this file, by their names; the environment and the command line go before it",
    )


def given_config(given: Sequence[str], environment: Mapping[str, str], *, variable: str) -> str:
    """The file that a command line or the environment names; empty: none."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument(CONFIG_FLAG, default=environment.get(variable, ""))
    try:
        return str(finder.parse_known_args(list(given))[0].config)
    except argparse.ArgumentError:  # without its value: the command's own parser says so
        return ""


def read_config(path: Path) -> list[ConfigEntry]:
    """The keys of a file, in its order.

    Raises:
        ConfigurationError: it cannot be read, is no YAML, or not of the shape that the module shows.
    """
    import yaml

    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise ConfigurationError(f"{path} is larger than {_MAX_FILE_BYTES} bytes: that is no file of flags")
        root = yaml.compose(content, Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigurationError(f"--config {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigurationError(f"{path}{_place(error)}: this is no YAML: {_reason(error)}") from error
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise ConfigurationError(f"{path}:{root.start_mark.line + 1}: expected lines of `flag: value`")
    return list(_keys(path, root))


def apply_config(
    entries: Sequence[ConfigEntry], parser: argparse.ArgumentParser, *, command: str
) -> list[argparse.Action]:
    """Makes the values defaults of the command's flags; returns the flags that collect a list and got one.

    Raises:
        ConfigurationError: a key is unknown, or its value is not what the flag takes.
    """
    # argparse has no public way to list a parser's flags.
    actions = {_name_of(action): action for action in parser._actions}
    known = {name: action for name, action in actions.items() if name not in ("help", "config")}
    file_lists = {name: value for name, value in parser._defaults.items() if isinstance(value, FileList)}
    lists: list[argparse.Action] = []
    for entry in entries:
        if entry.key in file_lists:
            elements = _elements(entry, file_lists[entry.key], known, command)
            parser.set_defaults(**{entry.key: replace(file_lists[entry.key], elements=elements)})
            continue
        action = known.get(entry.key)
        if action is None:
            raise _unknown(entry, [*known, *file_lists], command)
        action.default = _value_of(action, entry)
        action.required = False
        if isinstance(action, argparse._AppendAction):
            lists.append(action)
    return lists


def _elements(
    entry: ConfigEntry, file_list: FileList, known: Mapping[str, argparse.Action], command: str
) -> tuple[Mapping[str, Any], ...]:
    if not entry.entries:
        raise entry.refusal("it takes a list whose elements are lines of `flag: value`")
    allowed = {name: action for name, action in known.items() if name in file_list.flags}
    elements = []
    for keys in entry.entries:
        values = {}
        for key in keys:
            if key.key not in allowed:
                raise _unknown(key, list(allowed), command, inside=f" inside {entry.key}")
            values[allowed[key.key].dest] = _value_of(allowed[key.key], key)
        elements.append(values)
    return tuple(elements)


def _name_of(action: argparse.Action) -> str:
    """The long flag without its dashes; of a positional argument its name."""
    long = next((option for option in action.option_strings if option.startswith("--")), "")
    return long.removeprefix("--") or action.dest


def _keys(path: Path, node: Any) -> tuple[ConfigEntry, ...]:
    """Those of one mapping."""
    entries = tuple(_entry(path, key, value) for key, value in node.value)
    _refuse_repeats(entries)
    return entries


def _entry(path: Path, key: Any, value: Any) -> ConfigEntry:
    import yaml

    line = key.start_mark.line + 1
    if not isinstance(key, yaml.ScalarNode):
        raise ConfigurationError(f"{path}:{line}: a key is no name: expected lines of `flag: value`")
    name = key.value.replace("_", "-")
    nodes = value.value if isinstance(value, yaml.SequenceNode) else [value]
    if isinstance(value, yaml.SequenceNode) and nodes and all(isinstance(node, yaml.MappingNode) for node in nodes):
        return ConfigEntry(path, line, name, (), is_list=True, entries=tuple(_keys(path, node) for node in nodes))
    scalars = tuple((node.value, node.tag.rpartition(":")[2]) for node in nodes if isinstance(node, yaml.ScalarNode))
    entry = ConfigEntry(path, line, name, scalars, is_list=isinstance(value, yaml.SequenceNode))
    if len(scalars) < len(nodes):
        raise entry.refusal("the value is more than a word, a number, true or false, or a list of them")
    return entry


def _refuse_repeats(entries: Sequence[ConfigEntry]) -> None:
    lines: dict[str, int] = {}
    for entry in entries:
        if entry.key in lines:
            raise entry.refusal(f"it stands in line {lines[entry.key]} already: leave one of them out")
        lines[entry.key] = entry.line


def _unknown(entry: ConfigEntry, known: Sequence[str], command: str, *, inside: str = "") -> ConfigurationError:
    near = difflib.get_close_matches(entry.key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the keys are the flags that `shardline {command} --help` lists"
    return entry.refusal(f"`shardline {command}` has no such flag{inside}: {hint}")


def _value_of(action: argparse.Action, entry: ConfigEntry) -> Any:
    if entry.entries:
        raise entry.refusal("it takes no list of `flag: value`")
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        return _switch(entry)
    takes_list = isinstance(action, argparse._AppendAction) or action.nargs in ("*", "+")
    if takes_list:
        return [_scalar(action, entry, text, kind) for text, kind in entry.scalars]
    if entry.is_list:
        raise entry.refusal("it takes one value, not a list")
    return _scalar(action, entry, *entry.scalars[0])


def _switch(entry: ConfigEntry) -> bool:
    if entry.is_list or entry.scalars[0][1] != "bool":
        raise entry.refusal(f"it is {_told(entry)}, but this flag is a switch: write true or false")
    return entry.scalars[0][0].lower() in ("true", "yes", "on")


def _scalar(action: argparse.Action, entry: ConfigEntry, text: str, kind: str) -> Any:
    if kind == "null":
        raise entry.refusal("it has no value: write one, or leave the key out")
    if kind == "bool" or (action.type is None and action.choices is None and kind != "str"):
        raise entry.refusal(f"{text} is a {kind} to YAML, but this flag takes text: write it in quotes")
    try:
        value = action.type(text) if callable(action.type) else text
    except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
        reason = f": {error}" if isinstance(error, argparse.ArgumentTypeError) else ""
        raise entry.refusal(f"it is {text!r}, which this flag does not take{reason}") from None
    if action.choices is not None and value not in action.choices:
        raise entry.refusal(f"it is {text!r}, but must be one of: {', '.join(map(str, action.choices))}")
    return value


def _told(entry: ConfigEntry) -> str:
    return "a list" if entry.is_list else repr(entry.scalars[0][0])


def _place(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f":{mark.line + 1}"


def _reason(error: Exception) -> str:
    return getattr(error, "problem", None) or next(iter(str(error).splitlines()), type(error).__name__)
