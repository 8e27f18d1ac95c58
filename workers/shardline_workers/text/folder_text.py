"""The text side of a model in a folder as Hugging Face lays it out.

tokenizer.json           the tokenizer, its post-processor writes BOS where the model wants one
tokenizer.model          the tokenizer as SentencePiece wrote it, where there is no tokenizer.json
tokenizer_config.json    which tokens are BOS and EOS, maybe the chat template
chat_template.jinja      the chat template, before the one in tokenizer_config.json
config.json              context length, vocabulary; inside `text_config` where the model also sees or hears
generation_config.json   end-of-text ids and sampling defaults
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.text.generation_config import read_defaults
from shardline_workers.text.hf_tokenizer import HfTokenizer, load_hf_tokenizer
from shardline_workers.text.sentencepiece_file import load_sentencepiece_tokenizer
from shardline_workers.text.template_file import read_template
from shardline_workers.text.text_facts import TextFacts
from shardline_workers.text.text_model import SamplingDefaults

_ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")
_DEFAULTS = {name: name for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")}


def read_folder_text(folder: Path, *, with_defaults: bool = True) -> TextFacts:
    """Reads the folder's small files; sampling defaults only where they are wanted.

    Raises:
        ModelFileError: one is missing or broken.
    """
    tokenizer_config = ModelFacts.read_json(folder / "tokenizer_config.json")
    config = _text_config(ModelFacts.read_json(folder / "config.json"))
    generation = ModelFacts.read_json(folder / "generation_config.json")
    special_tokens = _special_tokens(tokenizer_config)
    tokenizer = _tokenizer(folder, tokenizer_config, special_tokens)
    return TextFacts(
        tokenizer=tokenizer,
        chat_template=_chat_template(folder, tokenizer_config),
        special_tokens=special_tokens,
        eos_ids=_eos_ids(tokenizer, generation, config, special_tokens),
        max_model_len=_context_length(config),
        vocab_size=config.whole("vocab_size", least=1) or tokenizer.vocab_size,
        defaults=read_defaults(generation, _DEFAULTS) if with_defaults else SamplingDefaults(),
    )


def _tokenizer(folder: Path, tokenizer_config: ModelFacts, special_tokens: Mapping[str, str]) -> HfTokenizer:
    whole, sentencepiece = folder / "tokenizer.json", folder / "tokenizer.model"
    if whole.is_file() or not sentencepiece.is_file():
        return load_hf_tokenizer(whole, bos_token=special_tokens.get("bos_token"))
    tells = tokenizer_config.flag("add_bos_token")
    return load_sentencepiece_tokenizer(
        sentencepiece,
        bos_token=special_tokens.get("bos_token"),
        adds_bos=True if tells is None else tells,
        special_tokens=frozenset(special_tokens.values()) | _added_specials(tokenizer_config),
    )


def _added_specials(tokenizer_config: ModelFacts) -> frozenset[str]:
    """Tokens that only the configuration calls special (`<start_of_turn>`)."""
    added = tokenizer_config.part("added_tokens_decoder").values.values()
    marked = [entry for entry in added if isinstance(entry, dict) and entry.get("special") is True]
    return frozenset(entry["content"] for entry in marked if isinstance(entry.get("content"), str))


def _text_config(config: ModelFacts) -> ModelFacts:
    inner = config.part("text_config")
    return ModelFacts(config.path, {**config.values, **inner.values})


def _special_tokens(tokenizer_config: ModelFacts) -> Mapping[str, str]:
    """Each is a string, or an object with its string in `content`."""
    tokens = {}
    for role in _ROLES:
        content = tokenizer_config.part(role).text("content")
        token = content if content is not None else tokenizer_config.text(role)
        if token is not None:
            tokens[role] = token
    return tokens


def _eos_ids(
    tokenizer: HfTokenizer, generation: ModelFacts, config: ModelFacts, special_tokens: Mapping[str, str]
) -> frozenset[int]:
    """Those for generation, or else the model's; the tokenizer's end of text always counts."""
    ids = generation.wholes("eos_token_id") or config.wholes("eos_token_id")
    own = tokenizer.token_id(special_tokens.get("eos_token", ""))
    return frozenset(ids) | (frozenset() if own is None else {own})


def _context_length(config: ModelFacts) -> int:
    length = config.whole("max_position_embeddings", least=1)
    if length is None:
        raise config.refusal("max_position_embeddings", value=None, bound="the number of tokens it was made for")
    return length


def _chat_template(folder: Path, tokenizer_config: ModelFacts) -> str | None:
    own = read_template(folder / "chat_template.jinja")
    if own is not None:
        return own
    value = tokenizer_config.values.get("chat_template")
    return _default_template(value) if isinstance(value, list) else tokenizer_config.text("chat_template")


def _default_template(templates: list[Any]) -> str | None:
    """Of several named ones, the one called `default`."""
    for entry in templates:
        match entry:
            case {"name": "default", "template": str(source)}:
                return source
    return None
