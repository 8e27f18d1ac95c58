"""What the headers of a model's files say, GGUF and safetensors alike: its configuration, and where each byte goes."""

from contextlib import closing
from dataclasses import dataclass
from math import prod
from pathlib import Path

from shardline_workers.files.ggml_types import GGML_TYPES
from shardline_workers.files.gguf_file import GgufFile
from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_source import ModelFiles, ModelKind
from shardline_workers.files.safetensors_folder import SafetensorsFolder
from shardline_workers.sizing.gguf_words import in_config_words


@dataclass(frozen=True, slots=True)
class HeaderTensor:
    """One tensor of a file, unread."""

    name: str
    kind: str  # F64 … BF16, or one of ggml's block types
    shape: tuple[int, ...]
    num_bytes: int

    @property
    def num_parameters(self) -> int:
        """Its numbers."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelHeader:
    """All of it."""

    format: str  # GGUF or safetensors
    family: str  # as the files call it: llama, LlamaForCausalLM
    facts: ModelFacts  # in the words of a config.json; of a model that sees, those of its text part
    tensors: tuple[HeaderTensor, ...]
    licence: str = ""


def read_model_header(files: ModelFiles) -> ModelHeader:
    """Reads headers, tenths of a second.

    Raises:
        ModelFileError: a file is missing or broken.
    """
    return _of_gguf(files.path) if files.kind is ModelKind.GGUF else _of_folder(files.path)


def _of_gguf(path: Path) -> ModelHeader:
    with GgufFile.open(path) as file:
        facts = ModelFacts(path, file.metadata)
        tensors = tuple(
            HeaderTensor(t.name, GGML_TYPES[t.ggml_type].name, t.shape, t.num_bytes) for t in file.tensors.values()
        )
    return ModelHeader(
        format="GGUF",
        family=facts.text("general.architecture") or "",
        facts=in_config_words(path, facts.values, {tensor.name: tensor.shape for tensor in tensors}),
        tensors=tensors,
        licence=facts.text("general.license") or "",
    )


def _of_folder(folder: Path) -> ModelHeader:
    facts = ModelFacts.read_json(folder / "config.json")
    with closing(SafetensorsFolder.open(folder)) as opened:
        tensors = tuple(HeaderTensor(name, t.dtype, t.shape, t.num_bytes) for name, t in opened.tensors.items())
    architectures = facts.values.get("architectures")
    return ModelHeader(
        format="safetensors",
        family=str(architectures[0]) if isinstance(architectures, list) and architectures else "",
        facts=ModelFacts(facts.path, {**facts.values, **facts.part("text_config").values}),
        tensors=tensors,
    )
