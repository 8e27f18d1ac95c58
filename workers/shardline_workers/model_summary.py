"""What a model is, read from the headers of its files alone: no weight is read, and no torch is needed.

It tells of models that cannot be served as well; whether one can is the decoder's to say.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shardline_workers.files.model_source import ModelFiles
from shardline_workers.sizing.config_shape import head_size, kv_heads, read_kv_shape
from shardline_workers.sizing.kv_shape import KvShape
from shardline_workers.sizing.model_header import HeaderTensor, read_model_header


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
    kv: KvShape | None = None
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
        return None if self.kv is None else self.kv.held_bytes(num_tokens, dtype=dtype)


def summarise(files: ModelFiles) -> ModelSummary:
    """Reads the headers of a model's files, tenths of a second.

    Raises:
        ModelFileError: a file is missing or broken.
    """
    header = read_model_header(files)
    facts = header.facts
    return ModelSummary(
        format=header.format,
        family=header.family,
        num_parameters=sum(tensor.num_parameters for tensor in header.tensors),
        type_bytes=_type_bytes(header.tensors),
        num_layers=facts.whole("num_hidden_layers"),
        num_heads=facts.whole("num_attention_heads"),
        num_kv_heads=kv_heads(facts),
        head_dim=head_size(facts),
        hidden_size=facts.whole("hidden_size"),
        context_tokens=facts.whole("max_position_embeddings"),
        vocab_size=facts.whole("vocab_size"),
        kv=read_kv_shape(facts),
        licence=header.licence,
    )


def _type_bytes(tensors: Iterable[HeaderTensor]) -> Mapping[str, int]:
    sums: Counter[str] = Counter()
    for tensor in tensors:
        sums[tensor.kind] += tensor.num_bytes
    return dict(sums.most_common())
