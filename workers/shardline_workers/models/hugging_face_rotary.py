"""Reads how heads turn from a Hugging Face config.json, in the ways in which versions of transformers wrote it.

rope_theta, rope_scaling, rope_local_base_freq            up to version 4
rope_parameters: {rope_theta, rope_type, factor, …}       from version 5
rope_parameters: {full_attention: {…}, sliding_attention: {…}}   the same where layers differ
"""

from collections.abc import Mapping
from dataclasses import dataclass

from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.kernels.operands import RotaryPairing
from shardline_workers.models.family_spec import FamilySpec, WindowRule
from shardline_workers.models.hugging_face_words import FULL_ATTENTION, LAYER_TYPES, REMEDY, SLIDING_ATTENTION
from shardline_workers.models.rotary import RotarySpec
from shardline_workers.models.rotary_scaling import (
    LinearScaling,
    Llama3Scaling,
    RotaryScaling,
    YarnScaling,
    yarn_magnitude,
)

_KINDS = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True, slots=True)
class HuggingFaceRotary:
    """All raise ModelFileError where a number is missing or has the wrong type, ValueError where it makes no sense."""

    facts: ModelFacts
    rotary_dim: int
    pairing: RotaryPairing = RotaryPairing.HALVES

    def of_global_layers(self, family: FamilySpec) -> RotarySpec:
        """Of layers that see everything: all layers, in most families."""
        theta = self._parameters(FULL_ATTENTION).number("rope_theta")
        if theta is None:
            theta = self.facts.number("rope_theta")
        return self._spec(family.default_theta if theta is None else theta, self._stretching())

    def score_magnitude(self) -> float:
        """What queries and keys are multiplied by in all dimensions, so that their scores stay as sharp as before."""
        stretching = self._stretching()
        share = stretching.number("mscale_all_dim")
        is_stretched = (stretching.text("rope_type") or stretching.text("type") or "default") != "default"
        return yarn_magnitude(_required(stretching, "factor"), share) if is_stretched and share else 1.0

    def of_windowed_layers(self, rule: WindowRule) -> RotarySpec:
        """Of layers that see the last tokens only."""
        parameters = self._parameters(SLIDING_ATTENTION, or_all=False)
        theta = parameters.number("rope_theta")
        if theta is None:
            theta = self.facts.number("rope_local_base_freq")
        return self._spec(rule.theta if theta is None else theta, parameters)

    def _parameters(self, layer_type: str, *, or_all: bool = True) -> ModelFacts:
        parameters = self._object("rope_parameters")
        by_type = not parameters.values.keys().isdisjoint(LAYER_TYPES)
        return _inside(parameters, layer_type) if by_type or not or_all else parameters

    def _stretching(self) -> ModelFacts:
        scaling = self._object("rope_scaling")
        return scaling if scaling.values else self._parameters(FULL_ATTENTION)

    def _object(self, key: str) -> ModelFacts:
        return _inside(self.facts, key)

    def _spec(self, theta: float, scaling: ModelFacts) -> RotarySpec:
        return RotarySpec(
            theta=theta,
            rotary_dim=self.rotary_dim,
            pairing=self.pairing,
            scaling=self._scaling(scaling),
        )

    def _scaling(self, facts: ModelFacts) -> RotaryScaling | None:
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
            case "yarn":
                return self._yarn(facts)
        raise ModelFileError.about(
            facts.path, "rope_type", value=kind, bound=f"one of {', '.join(_KINDS)}", remedy=REMEDY
        )

    def _yarn(self, facts: ModelFacts) -> YarnScaling:
        factor = _required(facts, "factor")
        original = facts.whole("original_max_position_embeddings")
        return YarnScaling(
            factor=factor,
            original_max_len=self._max_len(facts) if original is None else original,
            magnitude=_yarn_magnitude(facts, factor),
            fast_turns=facts.number("beta_fast") or 32.0,
            slow_turns=facts.number("beta_slow") or 1.0,
            whole_bounds=facts.flag("truncate") is not False,
        )

    def _max_len(self, facts: ModelFacts) -> int:
        """What a model was trained on, where the scaling does not say it."""
        max_len = self.facts.whole("max_position_embeddings")
        return int(_required(facts, "original_max_position_embeddings")) if max_len is None else max_len


def _yarn_magnitude(facts: ModelFacts, factor: float) -> float:
    given = facts.number("attention_factor")
    if given is not None:
        return given
    share, share_of_all = facts.number("mscale"), facts.number("mscale_all_dim")
    if share and share_of_all:
        return yarn_magnitude(factor, share) / yarn_magnitude(factor, share_of_all)
    return yarn_magnitude(factor)


def _inside(facts: ModelFacts, key: str) -> ModelFacts:
    value: object = facts.values.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise ModelFileError.about(facts.path, key, value=value, bound="an object", remedy=REMEDY)
    return facts.part(key)


def _required(facts: ModelFacts, key: str) -> float:
    value = facts.number(key)
    if value is None:
        raise ModelFileError.about(facts.path, key, value=None, bound="a number for this rope_type", remedy=REMEDY)
    return value
