"""Reads a decoder's shape from the metadata of a GGUF file."""

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from shardline_workers.files.gguf_file import GgufFile
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.kernels.operands import AttentionShape, RoutingRule
from shardline_workers.models.decoder_shape import MAX_LAYERS, DecoderShape
from shardline_workers.models.experts_shape import ExpertsShape
from shardline_workers.models.families import FAMILIES
from shardline_workers.models.family_spec import FamilySpec, WindowRule
from shardline_workers.models.latent_shape import LatentShape
from shardline_workers.models.rotary import RotarySpec
from shardline_workers.models.rotary_scaling import LinearScaling, RotaryScaling, YarnScaling, yarn_magnitude
from shardline_workers.models.windowed_layers import WindowedLayers, all_but_every

Shape = TypeVar("Shape")

_REMEDY = "Take a model of a supported family, or convert this one anew with a current llama.cpp."


class GgufConfig:
    """The metadata of an open GGUF file, read as a model's configuration."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self._architecture = file.metadata.get("general.architecture")

    def family(self) -> FamilySpec:
        """The family of the model.

        Raises:
            ModelFileError: it is none of ours, or has a setting that its family does not support.
        """
        self._refuse_parts()
        families = [family for family in FAMILIES if self._architecture in family.gguf.architectures]
        # Several may have one architecture, with experts and without, or with experts that are chosen in other ways.
        has_experts = bool(self._value("expert_count"))
        families.sort(key=lambda family: (family.experts is not None) != has_experts)
        for family in families:
            if self._unsupported(family) is None:
                return family
        for family in families:
            self._refuse_unsupported(family)
        known = ", ".join(name for family in FAMILIES for name in family.gguf.architectures)
        raise self._wrong("general.architecture", self._architecture, f"one of {known}")

    def decoder_shape(self, family: FamilySpec) -> DecoderShape:
        """Sizes and constants. The vocabulary's size is that of the embedding.

        Raises:
            ModelFileError: a number is missing or makes no sense.
        """
        num_heads = self._integer("attention.head_count")
        hidden_size = self._integer("embedding_length")
        num_layers = self._integer("block_count")
        head_dim = self._integer("attention.key_length", default=hidden_size // max(1, num_heads))
        latent = self._checked(self._latent) if family.has_latent_attention else None
        return self._checked(
            lambda: DecoderShape(
                family=family.name,
                vocab_size=self._vocab_size(family),
                hidden_size=hidden_size,
                intermediate_size=self._integer("feed_forward_length"),
                num_layers=num_layers,
                attention=self._heads(num_heads, head_dim, latent),
                latent=latent,
                norm_epsilon=self._number("attention.layer_norm_rms_epsilon", default=1e-5),
                rotary=self._rotary(family, head_dim if latent is None else latent.rope_dim),
                is_tied=family.gguf.names.theirs("lm_head") not in self._file.tensors,
                max_len=self._integer("context_length"),
                style=family.style,
                windowed=self._windowed(family, min(num_layers, MAX_LAYERS), head_dim),
                experts=self._experts(family, min(num_layers, MAX_LAYERS)),
                # Rounded to float32, as llama.cpp does it: what the weights were in is no longer known.
                embedding_scale=float(np.sqrt(np.float32(max(0, hidden_size)))) if family.scales_embedding else 1.0,
                score_divisor=self._score_divisor(family, hidden_size, num_heads)
                if latent is None
                else latent.score_divisor(self._score_magnitude()),
                score_softcap=self._softcap("attn_logit_softcapping"),
                logit_softcap=self._softcap("final_logit_softcapping"),
            )
        )

    def _checked(self, shape: Callable[[], Shape]) -> Shape:
        try:
            return shape()
        except ModelFileError:
            raise
        except ValueError as error:
            raise ModelFileError.because(self._file.path, str(error), remedy=_REMEDY) from error

    def _heads(self, num_heads: int, head_dim: int, latent: LatentShape | None) -> AttentionShape:
        if latent is not None:
            return latent.attention_shape(num_heads)
        num_kv_heads = self._integer("attention.head_count_kv", default=num_heads)
        return AttentionShape(num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim)

    def _latent(self) -> LatentShape:
        """Newer files tell the heads' own sizes under names of their own, and have their matrices split."""
        rope_dim = self._integer("rope.dimension_count")
        key, value = "attention.key_length", "attention.value_length"
        query_dim = self._integer(f"{key}_mla", default=self._integer(key, default=0))
        return LatentShape(
            query_rank=self._integer("attention.q_lora_rank", default=0) or None,
            kv_rank=self._integer("attention.kv_lora_rank"),
            nope_dim=query_dim - rope_dim,
            rope_dim=rope_dim,
            value_dim=self._integer(f"{value}_mla", default=self._integer(value, default=0)),
            norm_epsilon=self._number("attention.layer_norm_rms_epsilon", default=1e-5),
            is_split="blk.0.attn_k_b.weight" in self._file.tensors,
        )

    def _score_magnitude(self) -> float:
        """See `HuggingFaceRotary.score_magnitude`."""
        share = self._number("rope.scaling.yarn_log_multiplier", default=0.0)
        if self._value("rope.scaling.type") != "yarn" or not share:
            return 1.0
        return 1 + share * math.log(self._number("rope.scaling.factor", default=1.0))

    def _rotary(self, family: FamilySpec, head_dim: int) -> RotarySpec:
        return RotarySpec(
            theta=self._number("rope.freq_base", default=family.default_theta),
            rotary_dim=self._integer("rope.dimension_count", default=head_dim),
            pairing=family.gguf.pairing,
            scaling=self._scaling(sharpens_all=family.has_latent_attention),
        )

    def _windowed(self, family: FamilySpec, num_layers: int, head_dim: int) -> WindowedLayers | None:
        if family.windows is None or self._value("attention.sliding_window") in (None, 0):
            return None
        return WindowedLayers(
            layers=self._window_layers(family.windows, num_layers),
            window=self._integer("attention.sliding_window"),
            rotary=RotarySpec(
                theta=self._number("rope.freq_base_swa", default=family.windows.theta),
                rotary_dim=self._integer("rope.dimension_count", default=head_dim),
                pairing=family.gguf.pairing,
            ),
        )

    def _experts(self, family: FamilySpec, num_layers: int) -> ExpertsShape | None:
        """A layer has them where it has a router."""
        if family.experts is None:
            return None
        names = family.gguf.names
        width = self._integer("expert_feed_forward_length", default=self._integer("feed_forward_length"))
        return ExpertsShape(
            layers=frozenset(
                number for number in range(num_layers) if names.theirs(f"layers.{number}.router") in self._file.tensors
            ),
            num_experts=self._integer("expert_count"),
            width=width,
            rule=RoutingRule(
                num_active=self._integer("expert_used_count"),
                scoring=family.experts.scoring,
                renormalises=self._flag("expert_weights_norm", default=family.experts.renormalises),
                scale=self._number("expert_weights_scale", default=0.0) or 1.0,
                num_groups=self._integer("expert_group_count", default=0) or 1,
                num_active_groups=self._integer("expert_group_used_count", default=0) or 1,
            ),
            shared_width=self._integer("expert_shared_count", default=0) * width,
            has_bias=family.experts.has_bias,
        )

    def _window_layers(self, rule: WindowRule, num_layers: int) -> frozenset[int]:
        """The pattern is a period, or a flag for each layer."""
        pattern = self._value("attention.sliding_window_pattern")
        if isinstance(pattern, tuple):
            if len(pattern) < num_layers or not all(isinstance(flag, bool) for flag in pattern):
                bound = f"a number, or {num_layers} times true or false"
                raise self._wrong(self._key("attention.sliding_window_pattern"), pattern, bound)
            return frozenset(number for number in range(num_layers) if pattern[number])
        return all_but_every(self._integer("attention.sliding_window_pattern", default=rule.global_every), num_layers)

    def _scaling(self, *, sharpens_all: bool) -> RotaryScaling | None:
        """How positions are stretched. Where scores are sharpened in all dimensions, angles are not besides."""
        # Llama 3's scaling is a tensor of factors in these files, not metadata.
        kind = self._value("rope.scaling.type")
        factor = self._number("rope.scaling.factor", default=1.0)
        if kind in (None, "none"):
            return None
        if kind == "linear":
            return LinearScaling(factor=factor)
        if kind == "yarn":
            return YarnScaling(
                factor=factor,
                original_max_len=self._integer("rope.scaling.original_context_length"),
                magnitude=1.0
                if sharpens_all
                else self._number("rope.scaling.yarn_attn_factor", default=1.0) * yarn_magnitude(factor),
                fast_turns=self._number("rope.scaling.yarn_beta_fast", default=32.0),
                slow_turns=self._number("rope.scaling.yarn_beta_slow", default=1.0),
            )
        raise self._wrong(self._key("rope.scaling.type"), kind, "none, linear or yarn")

    def _score_divisor(self, family: FamilySpec, hidden_size: int, num_heads: int) -> float | None:
        by_width = self._integer("block_count") in family.gguf.depths_scored_by_width
        return hidden_size / max(1, num_heads) if by_width else None

    def _softcap(self, key: str) -> float | None:
        """None where there is none, or where it is 0, as converters write it."""
        return self._number(key, default=0.0) or None

    def _vocab_size(self, family: FamilySpec) -> int:
        name = family.gguf.names.theirs("embedding")
        if name not in self._file.tensors:
            raise self._wrong(f"tensor {name}", None, "the embedding")
        return self._file.tensors[name].shape[0]

    def _refuse_parts(self) -> None:
        """A GGUF file may hold what belongs to a model, and is none."""
        kind = self._file.metadata.get("general.type")
        if kind not in (None, "model"):
            raise ModelFileError.about(
                self._file.path,
                "general.type",
                value=kind,
                bound="model: LoRA adapters and image projectors cannot be served yet",
                remedy="Take the GGUF file of the model itself; of an adapter, one into which it was merged.",
            )

    def _unsupported(self, family: FamilySpec) -> str | None:
        """The first key of a setting that the family does not support."""
        return next((key for key, known in family.gguf.settings.items() if self._value(key) not in known), None)

    def _refuse_unsupported(self, family: FamilySpec) -> None:
        key = self._unsupported(family)
        if key is not None:
            told = ", ".join(str(value) for value in family.gguf.settings[key] if value is not None)
            bound = f"{told}: nothing else is supported for {family.name} yet"
            raise self._wrong(self._key(key), self._value(key), bound)

    def _integer(self, key: str, *, default: int | None = None) -> int:
        value = self._value(key)
        if value is None and default is not None:
            return default
        if type(value) is not int:
            raise self._wrong(self._key(key), value, "an integer, the same for all layers")
        return value

    def _number(self, key: str, *, default: float) -> float:
        value = self._value(key)
        if value is None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._wrong(self._key(key), value, "a number")
        return float(value)

    def _flag(self, key: str, *, default: bool) -> bool:
        value = self._value(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(self._key(key), value, "true or false")
        return default if value is None else value

    def _value(self, key: str) -> object:
        return self._file.metadata.get(self._key(key))

    def _key(self, key: str) -> str:
        return f"{self._architecture}.{key}"

    def _wrong(self, key: str, value: object, bound: str) -> ModelFileError:
        return ModelFileError.about(self._file.path, key, value=value, bound=bound, remedy=_REMEDY)
