"""A small byte-level BPE vocabulary, as GGUF metadata and as a tokenizer.json, for tests."""

import json
from pathlib import Path
from typing import Any

from shardline_workers.text.token_spelling import byte_level_alphabet

SPECIALS = ["<s>", "<|end|>"]
USER_DEFINED = "<think>"
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ hello", "1 2", "Ġ Ġ"]
ENTRIES = [*SPECIALS, *byte_level_alphabet(), *(merge.replace(" ", "") for merge in MERGES), USER_DEFINED]


def entry_id(entry: str) -> int:
    return ENTRIES.index(entry)


def gguf_metadata(**changes: Any) -> dict[str, Any]:
    """Keys of `tokenizer.ggml`; a change to None leaves one out."""
    types = [3 if entry in SPECIALS else 4 if entry == USER_DEFINED else 1 for entry in ENTRIES]
    metadata = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tuple(ENTRIES),
        "token_type": tuple(types),
        "merges": tuple(MERGES),
        "bos_token_id": 0,
        "eos_token_id": 1,
    } | changes
    return {f"tokenizer.ggml.{key}": value for key, value in metadata.items() if value is not None}


def byte_level_json(*, post_processor: Any = None) -> dict[str, Any]:
    """The content of a tokenizer.json for the same vocabulary."""
    added = [
        {"id": entry_id(entry), "content": entry, "special": entry in SPECIALS, "single_word": False}
        | {"lstrip": False, "rstrip": False, "normalized": False}
        for entry in [*SPECIALS, USER_DEFINED]
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": {entry: index for index, entry in enumerate(ENTRIES)}, "merges": MERGES}
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": post_processor,
        "decoder": byte_level,
        "model": model,
    }


def bos_template() -> dict[str, Any]:
    """A post-processor that puts BOS in front."""
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    specials = {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": specials}


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path
