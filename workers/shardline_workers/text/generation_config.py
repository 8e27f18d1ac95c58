"""How a model wants to be sampled where a client says nothing: its files' word, else that of its authors elsewhere."""

from collections.abc import Mapping
from dataclasses import fields, replace
from enum import Enum
from types import MappingProxyType

from shardline_workers import sampling_bounds
from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_source import ALIASES, ModelFiles
from shardline_workers.sampling_bounds import SamplingBounds
from shardline_workers.text.text_model import SamplingDefaults


class GenerationConfig(Enum):
    """Whether a model's own sampling defaults count; the values are those of the flag."""

    AUTO = "auto"
    NONE = "none"


# GGUF files that carry no defaults of their own: what the authors recommend in the model's description.
_RECOMMENDED: Mapping[str, SamplingDefaults] = MappingProxyType(
    {ALIASES["smollm2:135m"]: SamplingDefaults(temperature=0.2, top_p=0.9)}
)
_BOUNDS: Mapping[str, SamplingBounds] = MappingProxyType(
    {
        "temperature": sampling_bounds.TEMPERATURE,
        "top_k": sampling_bounds.TOP_K,
        "top_p": sampling_bounds.TOP_P,
        "min_p": sampling_bounds.MIN_P,
        "repetition_penalty": sampling_bounds.REPETITION_PENALTY,
    }
)


def read_defaults(facts: ModelFacts, keys: Mapping[str, str]) -> SamplingDefaults:
    """The defaults in a file, by the keys that it has for the fields.

    Raises:
        ModelFileError: one has the wrong type or is out of bounds.
    """
    read: dict[str, float | None] = {}
    for name, key in keys.items():
        value = facts.whole(key) if name == "top_k" else facts.number(key)
        if value is not None and not _BOUNDS[name].allow(value):
            raise facts.refusal(key, value=value, bound=f"{_BOUNDS[name]}; --generation-config none serves it without")
        read[name] = value
    return SamplingDefaults(**read)  # type: ignore[arg-type]


def with_recommended(defaults: SamplingDefaults, files: ModelFiles) -> SamplingDefaults:
    """The same with what the authors of a packaged model recommend, where its files say nothing."""
    recommended = _RECOMMENDED.get(ALIASES.get(files.source, files.source), SamplingDefaults())
    missing = {field.name for field in fields(defaults) if getattr(defaults, field.name) is None}
    return replace(defaults, **{name: getattr(recommended, name) for name in missing})


def told_defaults(defaults: SamplingDefaults) -> Mapping[str, float]:
    """Those that are set, by field."""
    values = {field.name: getattr(defaults, field.name) for field in fields(defaults)}
    return {name: value for name, value in values.items() if value is not None}
