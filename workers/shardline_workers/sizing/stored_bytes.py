"""How many bytes a parameter takes: by the name of a format, or as a model's own file has it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from shardline_workers.sizing.model_header import HeaderTensor
from shardline_workers.sizing.model_parts import (
    Part,
    PartName,
    embedding_part,
    final_norm_part,
    head_part,
    layer_parts,
    model_parts,
)
from shardline_workers.sizing.model_shape import ModelShape

_BFLOAT16_BITS = 16.0
_SMALL = (PartName.NORMS, PartName.ROUTER)  # in 16 bits or more in every format
_LAYER = re.compile(r"(?:^|\.)(?:blk|layers|h)\.(\d+)\.")
_NO_TEXT = re.compile(r"vision|visual|audio|^mm\.|^v\.|mtp|nextn")
_EMBEDDING = re.compile(r"token_embd|embed_tokens|wte")


class StoredBytes(Protocol):
    """Weights in one format."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def arithmetic(self) -> str:
        """What matrix units compute in: fp16, fp8 or int8."""
        ...

    def part_bytes(self, part: Part, *, layer: int | None) -> float:
        """Bytes of a part, of a layer or of the model itself."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """A format by its name."""

    name: str
    bits: float  # of a parameter, with its share of scales
    keeps_vocabulary: bool = False  # embedding and head stay in 16 bits
    arithmetic: str = "fp16"

    def part_bytes(self, part: Part, *, layer: int | None) -> float:
        """Bytes of a part; the same in every layer."""
        is_vocabulary = part.name in (PartName.EMBEDDING, PartName.HEAD)
        is_kept = part.name in _SMALL or (is_vocabulary and self.keeps_vocabulary)
        return part.num_parameters * (_BFLOAT16_BITS if is_kept else self.bits) / 8


# The K_M mixes are averages over a whole Llama 3.1 8B, as the README of llama.cpp's `quantize` lists them; other
# block formats follow from their blocks (files/ggml_types). int4 is what AWQ and GPTQ write with groups of 128.
QUANTISATIONS: Mapping[str, Quantisation] = MappingProxyType(
    {
        known.name: known
        for known in (
            Quantisation(name="bf16", bits=16),
            Quantisation(name="fp16", bits=16),
            Quantisation(name="fp8", bits=8, keeps_vocabulary=True, arithmetic="fp8"),
            Quantisation(name="int8", bits=8, keeps_vocabulary=True, arithmetic="int8"),
            Quantisation(name="q8_0", bits=8.5),
            Quantisation(name="q6_k", bits=6.5625),
            Quantisation(name="q5_k_m", bits=5.7036),
            Quantisation(name="q4_k_m", bits=4.8944),
            Quantisation(name="q4_0", bits=4.5),
            Quantisation(name="int4", bits=4.25, keeps_vocabulary=True),
        )
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileBytes:
    """Weights as a file has them: each layer by its own bytes."""

    name: str
    layers: tuple[float, ...]  # bytes for a parameter
    embedding: float
    head: float
    norm: float  # the final one
    arithmetic: str = "fp16"

    def part_bytes(self, part: Part, *, layer: int | None) -> float:
        """Bytes of a part, from the average of its layer."""
        if layer is not None:
            return part.num_parameters * self.layers[layer]
        rates = {PartName.EMBEDDING: self.embedding, PartName.HEAD: self.head, PartName.NORMS: self.norm}
        return part.num_parameters * rates[part.name]


def file_bytes(name: str, shape: ModelShape, tensors: Sequence[HeaderTensor], *, arithmetic: str = "fp16") -> FileBytes:
    """How the file's bytes lie: counted by layer, embedding, and the rest, which is final norm and head. Towers that
    see or hear are left out."""
    places: Counter[int | str] = Counter()
    for tensor in tensors:
        places[_place(tensor.name)] += tensor.num_bytes
    sizes = [sum(part.num_parameters for part in layer_parts(shape, layer)) for layer in shape.layers]
    embedding = places["embedding"] / embedding_part(shape).num_parameters
    head = 0 if shape.is_tied else head_part(shape).num_parameters
    rest = places["rest"] / (head + final_norm_part(shape).num_parameters)
    return FileBytes(
        name=name,
        arithmetic=arithmetic,
        layers=tuple(places[number] / size for number, size in enumerate(sizes)),
        embedding=embedding,
        head=embedding if shape.is_tied else rest,
        norm=rest,
    )


def weights_bytes(shape: ModelShape, stored: StoredBytes) -> int:
    """Of the whole model, each part once."""
    total = sum(stored.part_bytes(part, layer=None) for part in _outer_parts(shape))
    for number, layer in enumerate(shape.layers):
        total += sum(stored.part_bytes(part, layer=number) for part in layer_parts(shape, layer))
    return round(total)


def parts_bytes(shape: ModelShape, stored: StoredBytes) -> Mapping[PartName, int]:
    """The same by part, in the order of the parts."""
    sums = dict.fromkeys((part.name for part in model_parts(shape)), 0.0)
    for part in _outer_parts(shape):
        sums[part.name] += stored.part_bytes(part, layer=None)
    for number, layer in enumerate(shape.layers):
        for part in layer_parts(shape, layer):
            sums[part.name] += stored.part_bytes(part, layer=number)
    return {name: round(num_bytes) for name, num_bytes in sums.items()}


def _outer_parts(shape: ModelShape) -> tuple[Part, ...]:
    head = () if shape.is_tied else (head_part(shape),)
    return (embedding_part(shape), *head, final_norm_part(shape))


def _place(name: str) -> int | str:
    if _NO_TEXT.search(name):
        return "none"
    if layer := _LAYER.search(name):
        return int(layer[1])
    return "embedding" if _EMBEDDING.search(name) else "rest"
