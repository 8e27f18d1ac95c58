"""A model's own chat template: Jinja, rendered in a sandbox, in a process that can be stopped.

Why a process: a template is a program from elsewhere. Inside our own process nothing stops `"x" * 10**10` or a list
that doubles forty times, and a thread that runs one burns a core for ever. A child costs 15 MB, starts with the first
chat, and takes 0.1 ms a prompt beside the rendering itself; only who renders has one, so routers and not replicas.
"""

import threading
from collections.abc import Mapping, Sequence

from jinja2 import TemplateError, TemplateSyntaxError

from shardline_workers.text.chat_template import ChatTemplateError
from shardline_workers.text.template_child import MAX_ERROR_CHARACTERS, template_environment
from shardline_workers.text.template_process import TemplateProcess

TIME_LIMIT_S = 2.0  # of CPU time, a prompt
MAX_TEMPLATE_CHARACTERS = 1 << 20
MAX_PROMPT_CHARACTERS = 16 << 20  # four million tokens
MAX_MEMORY_BYTES = 1 << 30


class JinjaChatTemplate:
    """Implements `ChatTemplate`. Thread-safe: one prompt is rendered at a time, others wait."""

    def __init__(
        self, source: str, *, special_tokens: Mapping[str, str] | None = None, time_limit_s: float = TIME_LIMIT_S
    ) -> None:
        """Checks the syntax; nothing runs yet. `special_tokens`: `bos_token` and the like, for the template's use.

        Raises:
            ChatTemplateError: it is too long, or no template.
        """
        _check_syntax(source)
        self._setup = {
            "template": source,
            "globals": dict(special_tokens or {}),
            "max_characters": MAX_PROMPT_CHARACTERS,
            "max_memory_bytes": MAX_MEMORY_BYTES,
        }
        self._time_limit_s = time_limit_s
        self._lock = threading.Lock()
        self._process: TemplateProcess | None = None

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        """The prompt text; special tokens stand in it as text, BOS included where the template writes it.

        Raises:
            ChatTemplateError: the template refused the messages, failed, took too long or wrote too much.
        """
        request = {"messages": [dict(message) for message in messages], "add_generation_prompt": add_generation_prompt}
        with self._lock:
            text: str = self._running().ask(request)["text"]
        return text

    def close(self) -> None:
        """Ends the process; the next prompt starts another. Garbage collection and exit do it too."""
        with self._lock:
            if self._process is not None:
                self._process.close()
                self._process = None

    def _running(self) -> TemplateProcess:
        """The process, a new one where there is none yet or the last one was stopped."""
        if self._process is None or not self._process.alive:
            self._process = None
            self._process = TemplateProcess(self._setup, time_limit_s=self._time_limit_s)
        return self._process


def _check_syntax(source: str) -> None:
    """Parses only: to compile would compute constants."""
    if len(source) > MAX_TEMPLATE_CHARACTERS:
        size = f"{len(source)} characters, but at most {MAX_TEMPLATE_CHARACTERS} are allowed"
        raise ChatTemplateError(f"the chat template has {size}: is it the right file?")
    try:
        template_environment().parse(source)
    except (TemplateError, RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        line = f" in line {error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
        told = str(error)[:MAX_ERROR_CHARACTERS].rstrip(".")
        raise ChatTemplateError(
            f"the chat template is no valid Jinja{line}: {told}. Mend it, or give another with --chat-template"
        ) from error
