"""What runs in the process that renders a chat template: a script of its own, on jinja2 and the standard library.

It reads one JSON object a line from stdin and answers each with one on stdout:

    {"template", "globals", "time_limit_s", "max_characters", "max_memory_bytes"}     → {"ready": true}
    {"messages", "add_generation_prompt"}                                             → {"text"}
    anything that fails                                                               → {"error"}

A template comes with a model from elsewhere. Jinja's sandbox keeps it from Python's insides, but no sandbox inside a
process can stop a loop, a doubling list or an enormous number. So the kernel does: SIGPROF, left to its default action,
ends this process when a step has used too much CPU time, also inside one C call, and RLIMIT_AS bounds its memory. CPU
time, since on a busy machine an innocent template must not fail. It ends when stdin does, hence with its parent.
"""

import json
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, BinaryIO, NoReturn

from jinja2 import BaseLoader, Environment, Template, TemplateError, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_ERROR_CHARACTERS = 500


class GenerationTag(Extension):
    """`{% generation %}` marks what an assistant said, for training. Here its content is just content."""

    tags = {"generation"}  # noqa: RUF012  # as the base class has it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The content alone."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class NoOtherTemplates(BaseLoader):
    """Where a template looks for those that it names: nowhere."""

    def get_source(self, environment: Environment, template: str) -> NoReturn:
        """Refuses in words that say what does not work."""
        raise TemplateError(
            f"it asks for {template!r}, but a chat template stands alone: nothing is included or imported"
        )


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """The environment that chat templates are written for, strict about what the sandbox refuses."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Refuses at once; Jinja would print nothing and go on."""
        raise SecurityError(f"access to attribute {attribute!r} of {type(obj).__name__!r} is unsafe")


def template_environment() -> TemplateEnvironment:
    """With the filters, functions and tags that `transformers` gives to chat templates."""
    environment = TemplateEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[GenerationTag, loopcontrols],
        keep_trailing_newline=False,
        loader=NoOtherTemplates(),
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002  # templates may give it by position
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    """Plain JSON; Jinja's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def render(template: Template, variables: Mapping[str, Any], *, max_characters: int) -> str:
    """The rendered text.

    Raises:
        TemplateError: the template refuses, or writes more than `max_characters`.
    """
    pieces: list[str] = []
    num_characters = 0
    for piece in template.generate(**variables):
        num_characters += len(piece)
        if num_characters > max_characters:
            raise TemplateError(f"the prompt has more than {max_characters} characters")
        pieces.append(piece)
    return "".join(pieces)


def _bound_memory(num_bytes: int) -> None:
    """Address space, where the system enforces it; no core dumps, since prompts lie in memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or hard > num_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (num_bytes, hard))


def _told(error: Exception) -> str:
    """What a template's author wanted to say, or what went wrong."""
    text = str(error) if type(error) is TemplateError else f"{type(error).__name__}: {error}"
    return text[:MAX_ERROR_CHARACTERS]


class TemplateServer:
    """The loop of this process: the first line sets the template up, each further one is rendered."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self._time_limit_s = float(setup["time_limit_s"])
        self._max_characters = int(setup["max_characters"])
        self._max_memory_bytes = int(setup["max_memory_bytes"])
        self._environment = template_environment()
        self._environment.globals.update(setup["globals"])
        self._source = str(setup["template"])
        self._template: Template | None = None

    def compile(self) -> dict[str, Any]:
        """Compiling may compute already: Jinja folds constants."""
        self._template = self._environment.from_string(self._source)
        return {"ready": True}

    def render(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The prompt of one request; variables that templates ask for and nobody gives are None."""
        assert self._template is not None, "compile comes first"
        variables = {"tools": None, "documents": None, **request}
        return {"text": render(self._template, variables, max_characters=self._max_characters)}

    def answer(self, step: Callable[[], dict[str, Any]], replies: BinaryIO) -> None:
        """Runs one step against the timer and writes what came of it."""
        signal.setitimer(signal.ITIMER_PROF, self._time_limit_s)
        try:
            reply = step()
        except MemoryError:
            reply = {"error": f"it needs more than its limit of {self._max_memory_bytes >> 20} MiB of memory"}
        except Exception as error:  # whatever a template stumbles over is its error, not ours
            reply = {"error": _told(error)}
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answers until `requests` end."""
    first = requests.readline()
    if not first:
        return
    setup = json.loads(first)
    _bound_memory(setup["max_memory_bytes"])
    server = TemplateServer(setup)
    server.answer(server.compile, replies)
    for line in requests:
        server.answer(partial(server.render, json.loads(line)), replies)


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
