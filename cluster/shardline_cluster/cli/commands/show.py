"""`shardline show MODEL`: what a model is, from its files' headers alone."""

import argparse
from collections.abc import Iterator
from typing import Any

from shardline_cluster.cli.flags.number_flags import number_from
from shardline_cluster.cli.found_model import find_model
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.replica.model_location import default_cache_folder
from shardline_workers.files.byte_size import shown_bytes
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.model_source import ModelFiles
from shardline_workers.model_summary import ModelSummary, summarise
from shardline_workers.text.chat_template import ChatTemplateError
from shardline_workers.text.generation_config import told_defaults
from shardline_workers.text.load_text_model import load_text_model
from shardline_workers.text.text_model import TextModel

_DESCRIPTION = """\
Tells what a model in the cache, a .gguf file or a folder is: sizes, types, context, chat template, sampling defaults,
and what it takes of memory. Reads headers only, and fetches nothing.
"""
_EPILOG = """\
examples:
  shardline show smollm2:135m
  shardline show ./my-model.gguf --kv-tokens 100000
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "show",
        help="tell what a model is",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("model", metavar="MODEL", help="a name that `shardline models` shows, a .gguf file or a folder")
    parser.add_argument(
        "--kv-tokens",
        type=number_from(1, 2**40, whole=True),
        metavar="N",
        help="tell the memory for the keys and values of so many tokens (default: one whole context)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Shows.

    Raises:
        ConfigurationError: there is no such model here, or its files are broken.
    """
    cache_folder = default_cache_folder()
    try:
        files, licence = find_model(arguments.model, cache_folder)
        summary = summarise(files)
    except ModelFileError as error:
        raise ConfigurationError(str(error)) from error
    facts = dict(_facts(files, summary, licence=licence, kv_tokens=arguments.kv_tokens))
    if arguments.json:
        print(to_json({key: value for key, (value, _) in facts.items()}))
        return 0
    for key, (_, shown) in facts.items():
        print(f"{key.removeprefix('num_').replace('_', ' '):<18} {shown}")
    return 0


def _facts(
    files: ModelFiles, summary: ModelSummary, *, licence: str, kv_tokens: int | None
) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Name → the value for programs and for people, in the order in which they are shown."""
    yield "source", (files.pinned, files.pinned)
    yield "path", (str(files.path), str(files.path))
    yield "digest", (files.digest, files.digest)
    yield "format", (summary.format, summary.format)
    yield "family", (summary.family, summary.family)
    yield "parameters", (summary.num_parameters, f"{summary.num_parameters / 1e6:,.1f} million")
    for name in ("num_layers", "num_heads", "num_kv_heads", "head_dim", "hidden_size", "vocab_size", "context_tokens"):
        value = getattr(summary, name)
        yield name, (value, "not told" if value is None else f"{value:,}")
    types = ", ".join(f"{kind} {shown_bytes(num_bytes)}" for kind, num_bytes in summary.type_bytes.items())
    yield "weight_types", (dict(summary.type_bytes), types)
    yield "weights_bytes", (summary.weights_bytes, shown_bytes(summary.weights_bytes))
    yield from _memory(summary, kv_tokens or summary.context_tokens)
    told = licence or summary.licence
    yield "licence", (told or None, told or "not told")
    yield from _text_facts(files)


def _memory(summary: ModelSummary, num_tokens: int | None) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Of keys and values; for one token where nobody knows a number."""
    for dtype in ("bfloat16", "int8"):
        num_bytes = summary.kv_bytes(num_tokens or 1, dtype=dtype)
        shown = "not told" if num_bytes is None else f"{shown_bytes(num_bytes)} for {num_tokens or 1:,} tokens"
        yield f"kv_cache_{dtype}", (num_bytes, shown)


def _text_facts(files: ModelFiles) -> Iterator[tuple[str, tuple[Any, str]]]:
    try:
        text: TextModel | None = load_text_model(files, name=files.source, chat_template=None)
        why_not = ""
    except (ModelFileError, ChatTemplateError) as error:
        text, why_not = None, str(error)
    if text is None:
        yield "text", (None, f"cannot be read: {why_not}")
        return
    has_template = text.chat_template is not None
    yield "chat_template", (has_template, "yes" if has_template else "no: a base model, which completes texts")
    defaults = dict(told_defaults(text.defaults))
    shown = ", ".join(f"{name} {value:g}" for name, value in defaults.items())
    yield "sampling_defaults", (defaults, shown or "none")
