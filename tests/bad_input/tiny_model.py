"""A whole tiny model as a folder, tokenizer and chat template included: random weights, real code on every way."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.workers.text.tiny_vocabulary import ENTRIES, byte_level_json
from tests.workers.tiny_checkpoint import HIDDEN, NUM_LAYERS, tiny_config, tiny_tensors

VOCAB_SIZE = len(ENTRIES)
TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"


def write_tiny_model(folder: Path, *, changes: dict[str, object] | None = None, num_layers: int = NUM_LAYERS) -> Path:
    """Writes it; `changes` go into its config.json. A base model: it has no chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = tiny_tensors(num_layers=num_layers)
    rows = np.random.default_rng(7).normal(scale=0.4, size=(2, VOCAB_SIZE, HIDDEN))
    tensors |= {"model.embed_tokens.weight": rows[0], "lm_head.weight": rows[1]}
    save_file(tensors, str(folder / "model.safetensors"))
    sizes = {"vocab_size": VOCAB_SIZE, "num_hidden_layers": num_layers}
    config = tiny_config() | sizes | (changes or {})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(byte_level_json()))
    return folder
