"""Loads everything about a model that is not a tensor. No torch, and no process until a chat is rendered."""

from pathlib import Path

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.model_source import ModelFiles, ModelKind
from shardline_workers.text.folder_text import read_folder_text
from shardline_workers.text.generation_config import GenerationConfig, with_recommended
from shardline_workers.text.gguf_text import read_gguf_text
from shardline_workers.text.jinja_chat_template import JinjaChatTemplate
from shardline_workers.text.template_file import read_template
from shardline_workers.text.text_model import TextModel

# What marks a template given as such and not as a path.
_JINJA_MARKS = ("{{", "{%", "{#")


def load_text_model(
    files: ModelFiles,
    *,
    name: str,
    chat_template: str | None,
    generation_config: GenerationConfig = GenerationConfig.AUTO,
) -> TextModel:
    """The text side of the model at `files`, served under `name`.

    `chat_template` replaces the model's own: a path, or the template itself (it holds `{{` or `{%`). A model without
    one, a base model, has None.

    Raises:
        ModelFileError: a file is missing, broken or of a kind that is not supported.
        ChatTemplateError: the chat template is no valid Jinja.
    """
    has_defaults = generation_config is GenerationConfig.AUTO
    read = read_gguf_text if files.kind is ModelKind.GGUF else read_folder_text
    facts = read(files.path, with_defaults=has_defaults)
    source = facts.chat_template if chat_template is None else given_template(chat_template)
    return TextModel(
        name=name,
        tokenizer=facts.tokenizer,
        chat_template=None if source is None else JinjaChatTemplate(source, special_tokens=facts.special_tokens),
        eos_ids=facts.eos_ids,
        max_model_len=facts.max_model_len,
        vocab_size=facts.vocab_size,
        weights_digest=files.digest,
        defaults=with_recommended(facts.defaults, files) if has_defaults else facts.defaults,
    )


def given_template(text: str) -> str:
    """The template that a user gave: `text` itself where it looks like one, else the content of the file it names.

    Raises:
        ModelFileError: there is no such file, or it holds no text.
    """
    if any(mark in text for mark in _JINJA_MARKS):
        return text
    try:
        template = read_template(Path(text).expanduser())
    except RuntimeError:  # a ~ of nobody
        template = None
    if template is None:
        raise ModelFileError.about(
            text,
            "no chat template",
            value="no such file",
            bound="a file with a Jinja template, or the template itself",
            remedy="Check the path; a template given as text holds {{ or {%.",
        )
    return template
