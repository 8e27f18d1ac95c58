"""What sets a family of models apart, declared: one decoder reads it, and nobody subclasses anything."""

from collections.abc import Mapping
from dataclasses import dataclass

from shardline_workers.kernels.operands import RotaryPairing
from shardline_workers.weights.tensor_names import NameTable

Setting = str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilySpec:
    """One family. Settings with one supported value are named, so that another value is refused, not overlooked."""

    name: str
    hugging_face_architectures: tuple[str, ...]  # entries of `architectures` in config.json
    hugging_face_names: NameTable
    hugging_face_settings: Mapping[str, tuple[Setting, ...]]  # key of config.json → values that are supported
    gguf_architectures: tuple[str, ...]  # general.architecture
    gguf_names: NameTable
    gguf_settings: Mapping[str, tuple[Setting, ...]]  # key behind the architecture's prefix → supported values
    gguf_pairing: RotaryPairing  # Hugging Face checkpoints always pair halves
    default_theta: float = 10000.0
