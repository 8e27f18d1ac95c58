"""What the files of a model say about its text side, before anything is chosen or named by a user."""

from collections.abc import Mapping
from dataclasses import dataclass

from shardline_workers.text.text_model import SamplingDefaults
from shardline_workers.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFacts:
    """See `TextModel` for the fields of the same names."""

    tokenizer: Tokenizer
    chat_template: str | None  # Jinja source; None: a base model
    special_tokens: Mapping[str, str]  # `bos_token` and so on, for the template
    eos_ids: frozenset[int]
    max_model_len: int
    vocab_size: int
    defaults: SamplingDefaults
