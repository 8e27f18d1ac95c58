"""Chat messages to the prompt text that a model was trained on."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class ChatTemplateError(ValueError):
    """The template refused the messages, failed, or took too long."""


class ChatTemplate(Protocol):
    """A model's chat template."""

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        """The prompt text; special tokens stand in it as text, BOS included where the template writes it.

        Raises:
            ChatTemplateError: the template refused the messages, failed, or took too long.
        """
        ...
