"""Reads a decoder's shape from a Hugging Face config.json."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch

from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.kernels.operands import AttentionShape, RotaryPairing
from shardline_workers.models.decoder_shape import MAX_LAYERS, DecoderShape
from shardline_workers.models.families import FAMILIES
from shardline_workers.models.family_spec import FamilySpec, WindowRule
from shardline_workers.models.hugging_face_experts import hugging_face_experts
from shardline_workers.models.hugging_face_rotary import HuggingFaceRotary
from shardline_workers.models.hugging_face_words import LAYER_TYPES, REMEDY, SLIDING_ATTENTION
from shardline_workers.models.latent_shape import LatentShape
from shardline_workers.models.quantised_checkpoints import refuse_quantised
from shardline_workers.models.windowed_layers import WindowedLayers, all_but_every

LATENT_NORM_EPSILON = 1e-6  # whatever rms_norm_eps says: DeepSeek's own code leaves it at its default there
_REMEDY_FOR_SEEING = "Models that see or hear cannot be served yet: take the GGUF file of its text model."


class HuggingFaceConfig:
    """The facts of a config.json, read as a model's configuration."""

    def __init__(self, facts: ModelFacts) -> None:
        self._facts = facts

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Parses the folder's config.json.

        Raises:
            ModelFileError: it is no JSON object.
        """
        return cls(ModelFacts.read_json(folder / "config.json"))

    def family(self) -> FamilySpec:
        """The family of the model.

        Raises:
            ModelFileError: it is none of ours, its weights are quantised, or it has a setting that its family does not
                support.
        """
        refuse_quantised(self._facts)
        architectures = self._facts.values.get("architectures")
        names = architectures if isinstance(architectures, list) else []
        for family in FAMILIES:
            if any(name in names for name in family.hugging_face.architectures):
                self._refuse_unsupported(family)
                return family
        known = ", ".join(name for family in FAMILIES for name in family.hugging_face.architectures)
        sees = any(str(name).endswith("ForConditionalGeneration") for name in names)
        remedy = _REMEDY_FOR_SEEING if sees else REMEDY
        raise ModelFileError.about(
            self._facts.path, "architectures", value=architectures, bound=f"one of {known}", remedy=remedy
        )

    def decoder_shape(self, family: FamilySpec) -> DecoderShape:
        """Sizes and constants.

        Raises:
            ModelFileError: a number is missing or makes no sense.
        """
        values = {key: value for key, value in self._facts.values.items() if value is not None}
        whole = HuggingFaceConfig(replace(self._facts, values={**family.hugging_face.defaults, **values}))
        return whole._checked(lambda: whole._shape(family))

    def _checked(self, shape: Callable[[], DecoderShape]) -> DecoderShape:
        try:
            return shape()
        except ModelFileError:
            raise
        except ValueError as error:
            raise ModelFileError.because(self._facts.path, str(error), remedy=REMEDY) from error

    def _shape(self, family: FamilySpec) -> DecoderShape:
        num_heads = self._integer("num_attention_heads")
        hidden_size = self._integer("hidden_size")
        num_layers = self._integer("num_hidden_layers")
        head_dim = self._integer("head_dim", default=hidden_size // max(1, num_heads))
        latent = self._latent() if family.has_latent_attention else None
        rotary = self._rotary(head_dim, latent)
        return DecoderShape(
            family=family.name,
            vocab_size=self._integer("vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=self._integer("intermediate_size"),
            num_layers=num_layers,
            num_draft_layers=self._integer("num_nextn_predict_layers", default=0),
            attention=self._heads(num_heads, head_dim) if latent is None else latent.attention_shape(num_heads),
            latent=latent,
            norm_epsilon=self._number("rms_norm_eps"),
            rotary=rotary.of_global_layers(family),
            is_tied=self._facts.flag("tie_word_embeddings") or False,
            max_len=self._integer("max_position_embeddings"),
            style=family.style,
            windowed=self._windowed(family, min(num_layers, MAX_LAYERS), rotary),
            experts=hugging_face_experts(self._facts, family.experts, num_layers=min(num_layers, MAX_LAYERS)),
            norm_offset=family.hugging_face.norm_offset,
            embedding_scale=self._root_of(hidden_size) if family.scales_embedding else 1.0,
            score_divisor=self._facts.number("query_pre_attn_scalar")
            if latent is None
            else latent.score_divisor(rotary.score_magnitude()),
            score_softcap=self._facts.number("attn_logit_softcapping"),
            logit_softcap=self._facts.number("final_logit_softcapping"),
        )

    def _heads(self, num_heads: int, head_dim: int) -> AttentionShape:
        num_kv_heads = self._integer("num_key_value_heads", default=num_heads)
        return AttentionShape(num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim)

    def _latent(self) -> LatentShape:
        return LatentShape(
            query_rank=self._facts.whole("q_lora_rank"),
            kv_rank=self._integer("kv_lora_rank"),
            nope_dim=self._integer("qk_nope_head_dim"),
            rope_dim=self._integer("qk_rope_head_dim"),
            value_dim=self._integer("v_head_dim"),
            norm_epsilon=LATENT_NORM_EPSILON,
        )

    def _rotary(self, head_dim: int, latent: LatentShape | None) -> HuggingFaceRotary:
        if latent is None:
            return HuggingFaceRotary(self._facts, head_dim)
        is_interleaved = self._facts.flag("rope_interleave") is not False
        pairing = RotaryPairing.NEIGHBOURS if is_interleaved else RotaryPairing.HALVES
        return HuggingFaceRotary(self._facts, latent.rope_dim, pairing)

    def _windowed(self, family: FamilySpec, num_layers: int, rotary: HuggingFaceRotary) -> WindowedLayers | None:
        if family.windows is None:
            return None
        return WindowedLayers(
            layers=self._window_layers(family.windows, num_layers),
            window=self._integer("sliding_window"),
            rotary=rotary.of_windowed_layers(family.windows),
        )

    def _window_layers(self, rule: WindowRule, num_layers: int) -> frozenset[int]:
        """By name, layer for layer, or by a period."""
        types = self._facts.values.get("layer_types")
        if types is None:
            return all_but_every(self._integer("sliding_window_pattern", default=rule.global_every), num_layers)
        if not isinstance(types, list) or len(types) != num_layers or not all(kind in LAYER_TYPES for kind in types):
            raise self._wrong("layer_types", types, f"{num_layers} times one of {', '.join(LAYER_TYPES)}")
        return frozenset(number for number, kind in enumerate(types) if kind == SLIDING_ATTENTION)

    def _root_of(self, hidden_size: int) -> float:
        """Rounded to what the model's weights are in, as they were multiplied in training."""
        told = self._facts.text("dtype") or self._facts.text("torch_dtype")
        dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(told or "", torch.float32)
        return float(torch.tensor(hidden_size**0.5, dtype=torch.float64).to(dtype))

    def _refuse_unsupported(self, family: FamilySpec) -> None:
        values = self._facts.values
        for key, supported in family.hugging_face.settings.items():
            if values.get(key) not in supported:
                told = ", ".join(str(value) for value in supported if value is not None) or "no such key"
                raise self._wrong(key, values[key], f"{told}: nothing else is supported for {family.name} yet")

    def _integer(self, key: str, *, default: int | None = None) -> int:
        value = self._facts.whole(key)
        value = default if value is None else value
        if value is None:
            raise self._wrong(key, None, "a whole number")
        return value

    def _number(self, key: str) -> float:
        value = self._facts.number(key)
        if value is None:
            raise self._wrong(key, None, "a number")
        return value

    def _wrong(self, key: str, value: object, bound: str) -> ModelFileError:
        return ModelFileError.about(self._facts.path, key, value=value, bound=bound, remedy=REMEDY)
