"""How a GGUF file's `tokenizer.ggml.pre` wants a text cut before byte-pair merging.

The name stands for what the model's own tokenizer.json says; the patterns below are those of that file, written for the
same regular expression engine. Source of the names: llama.cpp's list of pre-tokenizers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tokenizers import Regex, normalizers, pre_tokenizers

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreTokenizerRecipe:
    """Everything that the name says."""

    pattern: str | None = None  # None: GPT-2's own
    single_digits: bool = False  # digits are cut out one by one first
    nfc: bool = False  # the text is composed first
    ignore_merges: bool = False  # a piece that is an entry stays whole, whatever the merges would make of it
    adds_bos: bool = False  # where the file has no `add_bos_token`

    def pre_tokenizer(self) -> pre_tokenizers.PreTokenizer:
        """A new pre-tokenizer that ends in the byte-level alphabet."""
        parts: list[pre_tokenizers.PreTokenizer] = []
        if self.single_digits:
            parts.append(pre_tokenizers.Digits(individual_digits=True))
        if self.pattern is not None:
            parts.append(pre_tokenizers.Split(Regex(self.pattern), behavior="isolated"))
        parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=self.pattern is None))
        return pre_tokenizers.Sequence(parts)

    def normalizer(self) -> normalizers.Normalizer | None:
        """A new normalizer, or None."""
        return normalizers.NFC() if self.nfc else None


_GPT2 = PreTokenizerRecipe()
_SINGLE_DIGITS = PreTokenizerRecipe(single_digits=True)
_LLAMA3 = PreTokenizerRecipe(
    pattern=rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}", ignore_merges=True, adds_bos=True
)
_QWEN2 = PreTokenizerRecipe(pattern=rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}", nfc=True)

RECIPES: Mapping[str, PreTokenizerRecipe] = MappingProxyType(
    dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais"), _GPT2)
    | dict.fromkeys(("smollm", "starcoder", "refact", "codeshell"), _SINGLE_DIGITS)
    | dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), _LLAMA3)
    | dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _QWEN2)
)
