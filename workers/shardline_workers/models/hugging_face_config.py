"""Reads a decoder's shape from a Hugging Face config.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.kernels.operands import AttentionShape, RotaryPairing
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.families import FAMILIES
from shardline_workers.models.family_spec import FamilySpec
from shardline_workers.models.rotary import LinearScaling, Llama3Scaling, RotarySpec

_REMEDY = "Take a model of a supported family, or convert this one."


class HuggingFaceConfig:
    """A parsed config.json that knows where it came from."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self._path = path
        self._values = values

    @classmethod
    def read(cls, folder: Path) -> "HuggingFaceConfig":
        """Parses the folder's config.json.

        Raises:
            ModelFileError: it is missing or no JSON object.
        """
        path = folder / "config.json"
        try:
            values = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise _unreadable(path, str(error)) from error
        if not isinstance(values, dict):
            raise _unreadable(path, type(values).__name__)
        return cls(path, values)

    def family(self) -> FamilySpec:
        """The family of the model.

        Raises:
            ModelFileError: it is none of ours, or has a setting that its family does not support.
        """
        architectures = self._values.get("architectures")
        names = architectures if isinstance(architectures, list) else []
        for family in FAMILIES:
            if set(names) & set(family.hugging_face_architectures):
                self._refuse_unsupported(family)
                return family
        known = ", ".join(name for family in FAMILIES for name in family.hugging_face_architectures)
        raise self._wrong("architectures", architectures, f"one of {known}")

    def decoder_shape(self, family: FamilySpec) -> DecoderShape:
        """Sizes and constants.

        Raises:
            ModelFileError: a number is missing or makes no sense.
        """
        num_heads = self._integer("num_attention_heads")
        hidden_size = self._integer("hidden_size")
        head_dim = self._integer("head_dim", default=hidden_size // max(1, num_heads))
        try:
            return DecoderShape(
                family=family.name,
                vocab_size=self._integer("vocab_size"),
                hidden_size=hidden_size,
                intermediate_size=self._integer("intermediate_size"),
                num_layers=self._integer("num_hidden_layers"),
                attention=AttentionShape(
                    num_heads=num_heads,
                    num_kv_heads=self._integer("num_key_value_heads", default=num_heads),
                    head_dim=head_dim,
                ),
                norm_epsilon=self._number("rms_norm_eps", default=1e-6),
                rotary=self._rotary(family, head_dim),
                is_tied=bool(self._values.get("tie_word_embeddings", False)),
                max_len=self._integer("max_position_embeddings", default=2048),
            )
        except ModelFileError:
            raise
        except ValueError as error:
            raise ModelFileError(f"{self._path}: {error}") from error

    def _rotary(self, family: FamilySpec, head_dim: int) -> RotarySpec:
        # Version 5 of transformers writes rope_parameters, older ones rope_theta and rope_scaling.
        parameters = self._values.get("rope_parameters") or {}
        scaling = self._values.get("rope_scaling") or parameters
        if not isinstance(parameters, dict) or not isinstance(scaling, dict):
            raise self._wrong("rope_scaling or rope_parameters", scaling, "an object")
        theta = parameters.get("rope_theta", self._number("rope_theta", default=family.default_theta))
        return RotarySpec(
            theta=float(theta),
            rotary_dim=head_dim,
            pairing=RotaryPairing.HALVES,
            scaling=self._scaling(scaling),
        )

    def _scaling(self, scaling: Mapping[str, Any]) -> LinearScaling | Llama3Scaling | None:
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        try:
            match kind:
                case "default":
                    return None
                case "linear":
                    return LinearScaling(factor=float(scaling["factor"]))
                case "llama3":
                    return Llama3Scaling(
                        factor=float(scaling["factor"]),
                        low_freq_factor=float(scaling["low_freq_factor"]),
                        high_freq_factor=float(scaling["high_freq_factor"]),
                        original_max_len=int(scaling["original_max_position_embeddings"]),
                    )
        except (KeyError, TypeError, ValueError) as error:
            raise self._wrong(f"parameters of rope_type {kind}", dict(scaling), "its numbers") from error
        raise self._wrong("rope_type", kind, "one of default, linear, llama3")

    def _refuse_unsupported(self, family: FamilySpec) -> None:
        for key, supported in family.hugging_face_settings.items():
            if self._values.get(key) not in supported:
                told = ", ".join(str(value) for value in supported if value is not None) or "no such key"
                raise self._wrong(key, self._values[key], f"{told}: nothing else is supported for {family.name} yet")

    def _integer(self, key: str, *, default: int | None = None) -> int:
        value = self._values.get(key)
        if value is None and default is not None:
            return default
        if type(value) is not int:
            raise self._wrong(key, value, "an integer")
        return value

    def _number(self, key: str, *, default: float) -> float:
        value = self._values.get(key, default)
        if type(value) not in (int, float):
            raise self._wrong(key, value, "a number")
        return float(value)

    def _wrong(self, key: str, value: object, bound: str) -> ModelFileError:
        return ModelFileError.about(self._path, key, value=value, bound=bound, remedy=_REMEDY)


def _unreadable(path: Path, value: object) -> ModelFileError:
    return ModelFileError.about(path, "cannot be read", value=value, bound="a JSON object", remedy="Fetch it again.")
