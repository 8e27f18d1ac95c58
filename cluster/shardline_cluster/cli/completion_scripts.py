"""Scripts by which bash, zsh and fish complete a command line. Pure: a tree of commands in, a script out.

They hold the whole tree, so that a TAB starts no Python.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from shardline_cluster.cli.command_tree import CommandNode, Flag

Path = tuple[str, ...]  # of a command: its own name and those above it, without the program's


def _nodes(node: CommandNode, path: Path = ()) -> Iterator[tuple[Path, CommandNode]]:
    """Every command with its path, the whole line first."""
    yield path, node
    for command in node.commands:
        yield from _nodes(command, (*path, command.name))


def _candidates(node: CommandNode) -> str:
    return " ".join([*(command.name for command in node.commands), *node.words])


def bash_script(tree: CommandNode) -> str:
    """For `source`, or a file in bash-completion's folder."""
    return f"""\
# Completion of {tree.name} for bash: source <({tree.name} completion bash)
_{tree.name}() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
  local command="" index word flags="" words=""
  for (( index = 1; index < COMP_CWORD; index++ )); do
    word=${{COMP_WORDS[index]}}
    case "$command $word" in
{_bash_commands(tree)}      *) [[ $word == -* ]] || break ;;
    esac
  done
  case "$command:$previous" in
{_bash_values(tree)}  esac
  case "$command" in
{_bash_candidates(tree)}  esac
  if [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$current"))
  else
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  fi
}}
complete -o default -F _{tree.name} {tree.name}
"""


def _bash_commands(tree: CommandNode) -> str:
    """Cases `COMMAND WORD` that lead to a subcommand."""
    return "".join(
        f'      "{" ".join(path[:-1])} {path[-1]}") command="{" ".join(path)}" ;;\n' for path, _ in _nodes(tree) if path
    )


def _bash_values(tree: CommandNode) -> str:
    """Cases `COMMAND:FLAG`, whose next word is a value: one of some, or anything, which is completed as a file."""
    lines = []
    for path, node in _nodes(tree):
        for flag in node.flags:
            if flag.takes_value:
                reply = f'COMPREPLY=($(compgen -W "{" ".join(flag.choices)}" -- "$current"))' if flag.choices else ":"
                lines.append(f'    "{" ".join(path)}:{flag.name}") {reply}; return ;;\n')
    return "".join(lines)


def _bash_candidates(tree: CommandNode) -> str:
    return "".join(
        f'    "{" ".join(path)}") flags="{" ".join(flag.name for flag in node.flags)}" words="{_candidates(node)}" ;;\n'
        for path, node in _nodes(tree)
    )


def zsh_script(tree: CommandNode) -> str:
    """For `source`, or a file `_NAME` in a folder of $fpath."""
    functions = "".join(_zsh_function(tree.name, path, node) for path, node in _nodes(tree))
    return f"""\
#compdef {tree.name}
# Completion of {tree.name} for zsh: source <({tree.name} completion zsh)
{functions}
if [ "$funcstack[1]" = "_{tree.name}" ]; then
  _{tree.name} "$@"
else
  compdef _{tree.name} {tree.name}
fi
"""


def _zsh_function(program: str, path: Path, node: CommandNode) -> str:
    specs = "".join(f" \\\n    {_zsh_flag(flag)}" for flag in node.flags)
    if not node.commands:
        argument = f"'*:word:({' '.join(node.words)})'" if node.words else "'*:file:_files'"
        return f"{_zsh_name(program, path)}() {{\n  _arguments{specs} \\\n    {argument}\n}}\n"
    described = " ".join(f"'{command.name}:{_zsh_text(command.help)}'" for command in node.commands)
    cases = "".join(
        f"      {command.name}) {_zsh_name(program, (*path, command.name))} ;;\n" for command in node.commands
    )
    return f"""\
{_zsh_name(program, path)}() {{
  local line state
  local -a commands=({described})
  _arguments -C{specs} \\
    '1:command:->command' '*::argument:->argument'
  case $state in
    command) _describe command commands ;;
    argument) case $line[1] in
{cases}    esac ;;
  esac
}}
"""


def _zsh_name(program: str, path: Path) -> str:
    return "_" + "_".join((program, *path)).replace("-", "_")


def _zsh_flag(flag: Flag) -> str:
    value = f":value:({' '.join(flag.choices)})" if flag.choices else ":value:_files"
    return f"'*{flag.name}[{_zsh_text(flag.help)}]{value if flag.takes_value else ''}'"


def _zsh_text(text: str) -> str:
    """A colon would end the text."""
    return text.replace(":", "\\:")


def fish_script(tree: CommandNode) -> str:
    """For `source`, or a file in ~/.config/fish/completions."""
    head = f"# Completion of {tree.name} for fish: {tree.name} completion fish | source\n"
    return head + "".join(line for path, node in _nodes(tree) for line in _fish_lines(tree.name, path, node))


def _fish_lines(program: str, path: Path, node: CommandNode) -> Iterator[str]:
    condition = " && ".join(f"__fish_seen_subcommand_from {name}" for name in path) or "__fish_use_subcommand"
    if path and node.commands:
        names = " ".join(command.name for command in node.commands)
        condition_of_words = f"{condition} && not __fish_seen_subcommand_from {names}"
    else:
        condition_of_words = condition
    for command in node.commands:
        yield f"complete -c {program} -f -n '{condition_of_words}' -a {command.name} -d '{command.help}'\n"
    if node.words:
        yield f"complete -c {program} -f -n '{condition_of_words}' -a '{' '.join(node.words)}'\n"
    for flag in node.flags:
        value = f" -x -a '{' '.join(flag.choices)}'" if flag.choices else " -r" if flag.takes_value else ""
        yield f"complete -c {program} -n '{condition}' -l {flag.name.removeprefix('--')}{value} -d '{flag.help}'\n"


SCRIPTS: Mapping[str, Callable[[CommandNode], str]] = MappingProxyType(
    {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}
)
