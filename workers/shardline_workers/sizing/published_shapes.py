"""Shapes of well-known models, so that they can be sized before anything of them is fetched.

Each file in `published_configs` has the numbers of the config.json that the authors publish with the weights on the
Hugging Face hub (meta-llama, Qwen, mistralai, google, deepseek-ai, HuggingFaceTB): sizes only, and of models that see
only the text part. They are facts of the models; no weights and no text of theirs are here.
"""

from pathlib import Path

from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.sizing.config_shape import read_model_shape
from shardline_workers.sizing.model_shape import ModelShape

_FOLDER = Path(__file__).parent / "published_configs"


def published_names() -> tuple[str, ...]:
    """All names, in order."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def published_shape(name: str) -> ModelShape | None:
    """The shape under that name, in any case of letters; None where there is none."""
    if name.lower() not in published_names():
        return None
    return read_model_shape(ModelFacts.read_json(_FOLDER / f"{name.lower()}.json"))
