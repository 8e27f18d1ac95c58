"""What a model is, read from the headers of its files alone: no weight is read, and no torch is needed.

It tells of models that cannot be served as well; whether one can is the decoder's to say.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from shardline_workers.files.ggml_types import GGML_TYPES
from shardline_workers.files.gguf_file import GgufFile
from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_source import ModelFiles, ModelKind
from shardline_workers.files.safetensors_folder import SafetensorsFolder

_BFLOAT16_BYTES = 2
# As kernels/native/api.h draws the int8 cache.
_DIMS_PER_KEY_SCALE = 32
_KEY_SCALE_BYTES = 2
_VALUE_SCALE_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """Facts of one model; None where its files do not say."""

    format: str  # GGUF or safetensors
    family: str  # as the files call it: llama, LlamaForCausalLM
    num_parameters: int
    type_bytes: Mapping[str, int]  # bytes of the tensors of each storage type, the largest first
    num_layers: int | None = None
    num_heads: int | None = None
    num_kv_heads: int | None = None
    head_dim: int | None = None
    hidden_size: int | None = None
    context_tokens: int | None = None
    vocab_size: int | None = None
    licence: str = ""

    @property
    def weights_bytes(self) -> int:
        """Of all tensors."""
        return sum(self.type_bytes.values())

    @property
    def main_type(self) -> str:
        """The storage type that most bytes have."""
        return next(iter(self.type_bytes), "")

    def kv_bytes(self, num_tokens: int, *, dtype: str = "bfloat16") -> int | None:
        """Bytes of keys and values of so many tokens in all layers, as bfloat16 or int8."""
        if self.num_layers is None or self.num_kv_heads is None or self.head_dim is None:
            return None
        head_bytes = 2 * self.head_dim * _BFLOAT16_BYTES
        if dtype == "int8":
            key_scales = math.ceil(self.head_dim / _DIMS_PER_KEY_SCALE)
            head_bytes = 2 * self.head_dim + key_scales * _KEY_SCALE_BYTES + _VALUE_SCALE_BYTES
        return num_tokens * self.num_layers * self.num_kv_heads * head_bytes


def summarise(files: ModelFiles) -> ModelSummary:
    """Reads the headers of a model's files, tenths of a second.

    Raises:
        ModelFileError: a file is missing or broken.
    """
    return _of_gguf(files.path) if files.kind is ModelKind.GGUF else _of_folder(files.path)


def _of_gguf(path: Path) -> ModelSummary:
    with GgufFile.open(path) as file:
        facts = ModelFacts(path, file.metadata)
        tensors = [(GGML_TYPES[t.ggml_type].name, t.shape, t.num_bytes) for t in file.tensors.values()]
    family = facts.text("general.architecture") or ""
    num_heads, hidden_size = _first(facts, f"{family}.attention.head_count"), facts.whole(f"{family}.embedding_length")
    tokens = facts.values.get("tokenizer.ggml.tokens")
    return ModelSummary(
        format="GGUF",
        family=family,
        num_parameters=_num_parameters(shape for _, shape, _ in tensors),
        type_bytes=_type_bytes((kind, num_bytes) for kind, _, num_bytes in tensors),
        num_layers=facts.whole(f"{family}.block_count"),
        num_heads=num_heads,
        num_kv_heads=_first(facts, f"{family}.attention.head_count_kv") or num_heads,
        head_dim=facts.whole(f"{family}.attention.key_length") or _share(hidden_size, num_heads),
        hidden_size=hidden_size,
        context_tokens=facts.whole(f"{family}.context_length"),
        vocab_size=len(tokens) if isinstance(tokens, tuple) else None,
        licence=facts.text("general.license") or "",
    )


def _of_folder(folder: Path) -> ModelSummary:
    facts = ModelFacts.read_json(folder / "config.json")
    facts = ModelFacts(facts.path, {**facts.values, **facts.part("text_config").values})
    with closing(SafetensorsFolder.open(folder)) as opened:
        tensors = [(t.dtype, t.shape, t.num_bytes) for t in opened.tensors.values()]
    num_heads, hidden_size = facts.whole("num_attention_heads"), facts.whole("hidden_size")
    architectures = facts.values.get("architectures")
    return ModelSummary(
        format="safetensors",
        family=str(architectures[0]) if isinstance(architectures, list) and architectures else "",
        num_parameters=_num_parameters(shape for _, shape, _ in tensors),
        type_bytes=_type_bytes((kind, num_bytes) for kind, _, num_bytes in tensors),
        num_layers=facts.whole("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=facts.whole("num_key_value_heads") or num_heads,
        head_dim=facts.whole("head_dim") or _share(hidden_size, num_heads),
        hidden_size=hidden_size,
        context_tokens=facts.whole("max_position_embeddings"),
        vocab_size=facts.whole("vocab_size"),
    )


def _first(facts: ModelFacts, key: str) -> int | None:
    """A number; of a list, which some files have by layer, the largest."""
    value = facts.values.get(key)
    if not isinstance(value, tuple):
        return facts.whole(key)
    return max((number for number in value if isinstance(number, int)), default=None)


def _share(hidden_size: int | None, num_heads: int | None) -> int | None:
    return hidden_size // num_heads if hidden_size and num_heads else None


def _num_parameters(shapes: Iterable[tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes)


def _type_bytes(tensors: Iterable[tuple[str, int]]) -> Mapping[str, int]:
    sums: Counter[str] = Counter()
    for kind, num_bytes in tensors:
        sums[kind] += num_bytes
    return dict(sums.most_common())
