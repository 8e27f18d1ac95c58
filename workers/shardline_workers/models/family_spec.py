"""What sets a family of models apart, declared: one decoder reads it, and nobody subclasses anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from shardline_workers.kernels.operands import RotaryPairing, Scoring
from shardline_workers.models.decoder_style import DecoderStyle
from shardline_workers.weights.tensor_names import NameTable

Setting = str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRule:
    """Most layers see the last tokens only. What the files say goes before these."""

    global_every: int  # each so many-th layer sees everything
    theta: float  # of the windowed layers; the others have the family's


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsStyle:
    """Layers have mixtures of experts. What the files say goes before `renormalises`."""

    renormalises: bool  # a token's weights are divided by their sum
    scoring: Scoring = Scoring.SOFTMAX
    has_bias: bool = False  # routers have one, for choices alone


@dataclass(frozen=True, slots=True, kw_only=True)
class HuggingFaceForm:
    """How a family lies in folders. Settings with one supported value are named, so that others are refused."""

    architectures: tuple[str, ...]  # entries of `architectures` in config.json
    names: NameTable
    settings: Mapping[str, tuple[Setting, ...]]  # key of config.json → values that are supported
    defaults: Mapping[str, Setting] = field(default_factory=lambda: MappingProxyType({}))  # what a file may leave out
    norm_offset: float = 0.0  # norms are stored less this


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufForm:
    """How a family lies in GGUF files: as llama.cpp's converter writes it."""

    architectures: tuple[str, ...]  # general.architecture
    names: NameTable
    settings: Mapping[str, tuple[Setting, ...]]  # key behind the architecture's prefix → supported values
    pairing: RotaryPairing  # Hugging Face checkpoints always pair halves
    # Models of so many layers scale their scores by width / heads and not by a head's size. No key tells.
    depths_scored_by_width: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilySpec:
    """One family."""

    name: str
    hugging_face: HuggingFaceForm
    gguf: GgufForm
    has_latent_attention: bool = False
    style: DecoderStyle = field(default_factory=DecoderStyle)
    scales_embedding: bool = False  # by the root of the width
    windows: WindowRule | None = None
    experts: ExpertsStyle | None = None
    default_theta: float = 10000.0
