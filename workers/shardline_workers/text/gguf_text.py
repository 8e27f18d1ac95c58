"""The text side of a model in a GGUF file, all from its metadata."""

from collections.abc import Mapping
from pathlib import Path

from shardline_workers.files.gguf_file import GgufFile
from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.text.generation_config import read_defaults
from shardline_workers.text.gguf_tokenizer import build_gguf_tokenizer
from shardline_workers.text.gguf_tokenizer_data import GgufTokenizerData
from shardline_workers.text.hf_tokenizer import HfTokenizer
from shardline_workers.text.text_facts import TextFacts
from shardline_workers.text.text_model import SamplingDefaults

_EMBEDDING = "token_embd.weight"
_ROLES = ("bos", "eos", "padding", "unknown")
_END_ROLES = ("eos", "eot", "eom")
# A file names one end or two, though models end turns and texts differently. So the known ends count where the
# vocabulary has them as special tokens, as llama.cpp does it.
_KNOWN_ENDS = ("<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>")

_DEFAULTS = {
    "temperature": "general.sampling.temp",
    "top_k": "general.sampling.top_k",
    "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}


def read_gguf_text(path: Path, *, with_defaults: bool = True) -> TextFacts:
    """Reads the file's header, tenths of a second; sampling defaults only where they are wanted.

    Raises:
        ModelFileError: no GGUF file, or its tokenizer is missing, wrong or not supported.
    """
    with GgufFile.open(path) as file:
        facts = ModelFacts(path, file.metadata)
        data = GgufTokenizerData(facts)
        tokenizer = build_gguf_tokenizer(data)
        embedding = file.tensors.get(_EMBEDDING)
        vocab_size = tokenizer.vocab_size if embedding is None else embedding.shape[0]
    return TextFacts(
        tokenizer=tokenizer,
        chat_template=facts.text("tokenizer.chat_template"),
        special_tokens=_special_tokens(data),
        eos_ids=_eos_ids(data, tokenizer),
        max_model_len=_context_length(facts),
        vocab_size=vocab_size,
        defaults=read_defaults(facts, _DEFAULTS) if with_defaults else SamplingDefaults(),
    )


def _special_tokens(data: GgufTokenizerData) -> Mapping[str, str]:
    """By the names that chat templates use."""
    names = {"padding": "pad_token", "unknown": "unk_token"}
    tokens = {names.get(role, f"{role}_token"): data.token(role) for role in _ROLES}
    return {name: token for name, token in tokens.items() if token is not None}


def _eos_ids(data: GgufTokenizerData, tokenizer: HfTokenizer) -> frozenset[int]:
    named = [data.token_id(role) for role in _END_ROLES]
    known = [token_id for end in _KNOWN_ENDS if (token_id := tokenizer.token_id(end)) in tokenizer.special_ids]
    return frozenset(token_id for token_id in [*named, *known] if token_id is not None)


def _context_length(facts: ModelFacts) -> int:
    architecture = facts.text("general.architecture")
    if architecture is None:
        raise facts.refusal("general.architecture", value=None, bound="the name of the model's architecture")
    key = f"{architecture}.context_length"
    length = facts.whole(key, least=1)
    if length is None:
        raise facts.refusal(key, value=None, bound="the number of tokens that the model was made for")
    return length
