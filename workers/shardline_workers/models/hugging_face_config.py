"""Reads a decoder's shape from a Hugging Face config.json."""

from pathlib import Path
from typing import Self

from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.kernels.operands import AttentionShape, RotaryPairing
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.families import FAMILIES
from shardline_workers.models.family_spec import FamilySpec
from shardline_workers.models.rotary import LinearScaling, Llama3Scaling, RotarySpec

_REMEDY = "Take a model of a supported family, or convert this one."


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
            ModelFileError: it is none of ours, or has a setting that its family does not support.
        """
        architectures = self._facts.values.get("architectures")
        names = architectures if isinstance(architectures, list) else []
        for family in FAMILIES:
            if any(name in names for name in family.hugging_face_architectures):
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
                is_tied=self._facts.flag("tie_word_embeddings") or False,
                max_len=self._integer("max_position_embeddings", default=2048),
            )
        except ModelFileError:
            raise
        except ValueError as error:
            raise ModelFileError.because(self._facts.path, str(error), remedy=_REMEDY) from error

    def _rotary(self, family: FamilySpec, head_dim: int) -> RotarySpec:
        # Version 5 of transformers writes rope_parameters, older ones rope_theta and rope_scaling.
        parameters = self._object("rope_parameters")
        scaling = self._object("rope_scaling")
        theta = parameters.number("rope_theta")
        return RotarySpec(
            theta=self._number("rope_theta", default=family.default_theta) if theta is None else theta,
            rotary_dim=head_dim,
            pairing=RotaryPairing.HALVES,
            scaling=_scaling(scaling if scaling.values else parameters),
        )

    def _refuse_unsupported(self, family: FamilySpec) -> None:
        values = self._facts.values
        for key, supported in family.hugging_face_settings.items():
            if values.get(key) not in supported:
                told = ", ".join(str(value) for value in supported if value is not None) or "no such key"
                raise self._wrong(key, values[key], f"{told}: nothing else is supported for {family.name} yet")

    def _integer(self, key: str, *, default: int | None = None) -> int:
        value = self._facts.whole(key)
        value = default if value is None else value
        if value is None:
            raise self._wrong(key, None, "a whole number")
        return value

    def _number(self, key: str, *, default: float) -> float:
        value = self._facts.number(key)
        return default if value is None else value

    def _object(self, key: str) -> ModelFacts:
        value = self._facts.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise self._wrong(key, value, "an object")
        return self._facts.part(key)

    def _wrong(self, key: str, value: object, bound: str) -> ModelFileError:
        return ModelFileError.about(self._facts.path, key, value=value, bound=bound, remedy=_REMEDY)


def _scaling(facts: ModelFacts) -> LinearScaling | Llama3Scaling | None:
    kind = facts.text("rope_type") or facts.text("type") or "default"
    match kind:
        case "default":
            return None
        case "linear":
            return LinearScaling(factor=_required(facts, "factor"))
        case "llama3":
            return Llama3Scaling(
                factor=_required(facts, "factor"),
                low_freq_factor=_required(facts, "low_freq_factor"),
                high_freq_factor=_required(facts, "high_freq_factor"),
                original_max_len=int(_required(facts, "original_max_position_embeddings")),
            )
    raise ModelFileError.about(
        facts.path, "rope_type", value=kind, bound="one of default, linear, llama3", remedy=_REMEDY
    )


def _required(facts: ModelFacts, key: str) -> float:
    value = facts.number(key)
    if value is None:
        raise ModelFileError.about(facts.path, key, value=None, bound="a number for this rope_type", remedy=_REMEDY)
    return value
