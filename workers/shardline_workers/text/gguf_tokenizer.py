"""Builds the tokenizer that a GGUF file's metadata describe. Byte-level BPE (`tokenizer.ggml.model` = gpt2) for now."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models

from shardline_workers.files.gguf_header import GgufValue
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.text.hf_tokenizer import HfTokenizer
from shardline_workers.text.pre_tokenizers import RECIPES, PreTokenizerRecipe

_CONTROL = 3  # token types: special, never shown
_USER_DEFINED = 4  # stays whole in a text, and is shown


@dataclass(frozen=True, slots=True)
class GgufTokenizerData:
    """The tokenizer's part of the metadata, checked: types, lengths, and ids within the vocabulary."""

    path: Path
    metadata: Mapping[str, GgufValue]

    def refusal(self, what: str, *, value: object, bound: str) -> ModelFileError:
        """The error that names this file."""
        remedy = "Take another conversion of the model, or its folder with a tokenizer.json."
        return ModelFileError.about(self.path, what, value=value, bound=bound, remedy=remedy)

    def word(self, key: str) -> str | None:
        """A string, or None where the file has no such key."""
        value = self.metadata.get(f"tokenizer.{key}")
        if value is not None and not isinstance(value, str):
            raise self.refusal(f"tokenizer.{key}", value=value, bound="a string")
        return value

    def words(self, key: str) -> tuple[str, ...]:
        """An array of strings."""
        value = self.metadata.get(f"tokenizer.{key}")
        if not isinstance(value, tuple) or not value or not isinstance(value[0], str):
            raise self.refusal(f"tokenizer.{key}", value=value, bound="an array of strings")
        return value  # type: ignore[return-value]  # a GGUF array has one element type

    def token_types(self, num_tokens: int) -> tuple[int, ...]:
        """One type a token; all normal where the file says nothing."""
        value = self.metadata.get("tokenizer.ggml.token_type", (1,) * num_tokens)
        if not isinstance(value, tuple) or len(value) != num_tokens or not isinstance(value[0], int):
            raise self.refusal("tokenizer.ggml.token_type", value=value, bound=f"{num_tokens} numbers")
        return value  # type: ignore[return-value]  # as above

    def token(self, role: str) -> str | None:
        """The entry of `bos`, `eos`, `padding`, `unknown` …, or None where the model has none."""
        token_id = self.token_id(role)
        return None if token_id is None else self.words("ggml.tokens")[token_id]

    def token_id(self, role: str) -> int | None:
        """Its id. One outside the vocabulary is refused."""
        key = f"tokenizer.ggml.{role}_token_id"
        value = self.metadata.get(key)
        if value is None:
            return None
        num_tokens = len(self.words("ggml.tokens"))
        if not isinstance(value, int) or not 0 <= value < num_tokens:
            raise self.refusal(key, value=value, bound=f"a number from 0 to {num_tokens - 1}")
        return value

    def recipe(self) -> PreTokenizerRecipe:
        """How texts are cut, by the names of model and pre-tokenizer."""
        model, name = self.word("ggml.model"), self.word("ggml.pre")
        if model != "gpt2":
            raise self.refusal("tokenizer.ggml.model", value=model, bound="gpt2 (byte-level BPE)")
        recipe = RECIPES.get(name or "")
        if recipe is None:
            raise self.refusal("tokenizer.ggml.pre", value=name, bound=f"one of {', '.join(RECIPES)}")
        return recipe


def build_gguf_tokenizer(metadata: Mapping[str, GgufValue], *, path: Path) -> HfTokenizer:
    """The tokenizer of the GGUF file at `path`; takes a tenth of a second on 49,000 tokens.

    Raises:
        ModelFileError: a kind of tokenizer that is not supported, or data that do not fit together.
    """
    data = GgufTokenizerData(path, metadata)
    recipe = data.recipe()
    tokenizer = Tokenizer(_model(data, recipe))
    tokenizer.pre_tokenizer = recipe.pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    normalizer = recipe.normalizer()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    _add_tokens(tokenizer, data)
    adds_bos = bool(metadata.get("tokenizer.ggml.add_bos_token", recipe.adds_bos))
    return HfTokenizer(tokenizer, bos_token=data.token("bos"), adds_bos=adds_bos, path=path)


def _model(data: GgufTokenizerData, recipe: PreTokenizerRecipe) -> models.BPE:
    vocabulary = {entry: token_id for token_id, entry in enumerate(data.words("ggml.tokens"))}
    merges = [_pair(data, merge) for merge in data.words("ggml.merges")]
    try:
        return models.BPE(vocab=vocabulary, merges=merges, ignore_merges=recipe.ignore_merges)
    except Exception as error:  # the library raises nothing narrower
        raise data.refusal("tokenizer.ggml.merges", value=str(error), bound="merges of entries") from error


def _pair(data: GgufTokenizerData, merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    if not left or not right:
        raise data.refusal("a merge of tokenizer.ggml.merges", value=merge, bound="two entries with a space between")
    return left, right


def _add_tokens(tokenizer: Tokenizer, data: GgufTokenizerData) -> None:
    """Control tokens become special, user-defined ones merely whole; both keep the ids that they have."""
    entries = data.words("ggml.tokens")
    types = data.token_types(len(entries))
    for kind, special in ((_CONTROL, True), (_USER_DEFINED, False)):
        chosen = [entry for entry, token_type in zip(entries, types, strict=True) if token_type == kind and entry]
        tokenizer.add_tokens([AddedToken(entry, normalized=False, special=special) for entry in chosen])
