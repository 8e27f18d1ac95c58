"""Reads a decoder's shape from the metadata of a GGUF file."""

from shardline_workers.files.gguf_file import GgufFile
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.kernels.operands import AttentionShape
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.families import FAMILIES
from shardline_workers.models.family_spec import FamilySpec
from shardline_workers.models.rotary import LinearScaling, RotarySpec

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
        for family in FAMILIES:
            if self._architecture in family.gguf_architectures:
                self._refuse_unsupported(family)
                return family
        known = ", ".join(name for family in FAMILIES for name in family.gguf_architectures)
        raise self._wrong("general.architecture", self._architecture, f"one of {known}")

    def decoder_shape(self, family: FamilySpec) -> DecoderShape:
        """Sizes and constants. The vocabulary's size is that of the embedding.

        Raises:
            ModelFileError: a number is missing or makes no sense.
        """
        num_heads = self._integer("attention.head_count")
        hidden_size = self._integer("embedding_length")
        head_dim = self._integer("attention.key_length", default=hidden_size // max(1, num_heads))
        try:
            return DecoderShape(
                family=family.name,
                vocab_size=self._vocab_size(family),
                hidden_size=hidden_size,
                intermediate_size=self._integer("feed_forward_length"),
                num_layers=self._integer("block_count"),
                attention=AttentionShape(
                    num_heads=num_heads,
                    num_kv_heads=self._integer("attention.head_count_kv", default=num_heads),
                    head_dim=head_dim,
                ),
                norm_epsilon=self._number("attention.layer_norm_rms_epsilon", default=1e-5),
                rotary=self._rotary(family, head_dim),
                is_tied=family.gguf_names.theirs("lm_head") not in self._file.tensors,
                max_len=self._integer("context_length"),
            )
        except ModelFileError:
            raise
        except ValueError as error:
            raise ModelFileError.because(self._file.path, str(error), remedy=_REMEDY) from error

    def _rotary(self, family: FamilySpec, head_dim: int) -> RotarySpec:
        return RotarySpec(
            theta=self._number("rope.freq_base", default=family.default_theta),
            rotary_dim=self._integer("rope.dimension_count", default=head_dim),
            pairing=family.gguf_pairing,
            scaling=self._scaling(),
        )

    def _scaling(self) -> LinearScaling | None:
        # Llama 3's scaling is a tensor of factors in these files, not metadata.
        kind = self._value("rope.scaling.type")
        if kind in (None, "none"):
            return None
        if kind == "linear":
            return LinearScaling(factor=self._number("rope.scaling.factor", default=1.0))
        raise self._wrong(self._key("rope.scaling.type"), kind, "none or linear")

    def _vocab_size(self, family: FamilySpec) -> int:
        name = family.gguf_names.theirs("embedding")
        if name not in self._file.tensors:
            raise self._wrong(f"tensor {name}", None, "the embedding")
        return self._file.tensors[name].shape[0]

    def _refuse_unsupported(self, family: FamilySpec) -> None:
        for key, supported in family.gguf_settings.items():
            if self._value(key) not in supported:
                told = ", ".join(str(value) for value in supported if value is not None)
                raise self._wrong(
                    self._key(key), self._value(key), f"{told}: nothing else is supported for {family.name} yet"
                )

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

    def _value(self, key: str) -> object:
        return self._file.metadata.get(self._key(key))

    def _key(self, key: str) -> str:
        return f"{self._architecture}.{key}"

    def _wrong(self, key: str, value: object, bound: str) -> ModelFileError:
        return ModelFileError.about(self._file.path, key, value=value, bound=bound, remedy=_REMEDY)
