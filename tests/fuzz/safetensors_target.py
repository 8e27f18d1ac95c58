"""Safetensors files that lie: one file alone, and folders with an index, shards and a configuration."""

import json
import struct
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.safetensors_file import DTYPE_BITS, SafetensorsFile
from shardline_workers.files.safetensors_folder import INDEX_NAME, SafetensorsFolder, weight_files
from shardline_workers.models.hugging_face_config import HuggingFaceConfig
from shardline_workers.weights.tensor_source import SafetensorsTensorSource
from tests.fuzz.bytes_mutation import EDGE_NUMBERS, mutated
from tests.fuzz.json_mutation import json_bytes, mutated_json
from tests.fuzz.packed_files import pack_files, unpack_files
from tests.fuzz.target import FuzzTarget

_SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
_MOST_READ_WEIGHTS = 1 << 14
_SHAPES = {"model.embed_tokens.weight": (6, 8), "model.norm.weight": (8,), "lm_head.weight": (6, 8), "scalar": ()}
_CONFIG: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "vocab_size": 6,
    "torch_dtype": "bfloat16",
}
_GEMMA_CONFIG: Mapping[str, Any] = {
    **{key: value for key, value in _CONFIG.items() if key not in ("rope_scaling", "hidden_act")},
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 16,
    "hidden_activation": "gelu_pytorch_tanh",
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_local_base_freq": 10_000.0,
    "final_logit_softcapping": None,
}


def make_safetensors(random: Random) -> bytes:
    """One file alone."""
    return _file(random, _SHAPES)


def read_safetensors(content: bytes, folder: Path) -> None:
    """Opens it and looks at all of its tensors."""
    path = folder / "model.safetensors"
    path.write_bytes(content)
    with SafetensorsFile.open(path) as file:
        for name, tensor in file.tensors.items():
            assert len(file.tensor_bytes(name)) == tensor.num_bytes, "a tensor reaches beyond its file"


def make_folder(random: Random) -> bytes:
    """A folder in two shards, one part of which lies."""
    names = list(_SHAPES)
    weight_map = {name: _SHARDS[number % 2] for number, name in enumerate(names)}
    parts = [{name: _SHAPES[name] for name in names[number::2]} for number in range(2)]
    liar = random.randrange(4)  # index, configuration, both shards
    files = {
        INDEX_NAME: _json(random, {"metadata": {}, "weight_map": weight_map}, lies=liar == 0),
        "config.json": _json(random, random.choice((_CONFIG, _GEMMA_CONFIG)), lies=liar == 1),
    }
    for name, part in zip(_SHARDS, parts, strict=True):
        files[name] = _file(random, part, lies=liar >= 2)
    if random.random() < 0.05:
        del files[random.choice(list(files))]
    return pack_files(files)


def read_folder(content: bytes, folder: Path) -> None:
    """Configuration, index, shards, and numbers of tensors: each is tried, whatever the one before it said."""
    for name, file in unpack_files(content, [INDEX_NAME, "config.json", *_SHARDS]).items():
        if file is None:
            (folder / name).unlink(missing_ok=True)
        else:
            (folder / name).write_bytes(file)
    refused: ModelFileError | None = None
    for read in (_read_config, weight_files, _read_tensors):
        try:
            read(folder)
        except ModelFileError as error:
            refused = error
    if refused is not None:
        raise refused


def _read_config(folder: Path) -> None:
    config = HuggingFaceConfig.read(folder)
    config.decoder_shape(config.family())


def _read_tensors(folder: Path) -> None:
    with closing(SafetensorsFolder.open(folder)) as shards:
        source = SafetensorsTensorSource(folder, shards)
        for name in shards.tensors:
            stored = source.stored(name)
            if len(stored.data) <= _MOST_READ_WEIGHTS:
                with np.errstate(all="ignore"):
                    source.numbers(name, stored)


def _json(random: Random, value: Any, *, lies: bool) -> bytes:
    if not lies:
        return json.dumps(value).encode()
    return json_bytes(random, mutated_json(random, dict(value)))


def _file(random: Random, shapes: Mapping[str, tuple[int, ...]], *, lies: bool = True) -> bytes:
    header, offset = {}, 0
    for name, shape in shapes.items():
        dtype = random.choice(list(DTYPE_BITS)) if random.random() < 0.1 else "F32"
        num_bytes = DTYPE_BITS[dtype] // 8
        for dim in shape:
            num_bytes *= dim
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + num_bytes]}
        offset += num_bytes
    told: Any = {"__metadata__": {"format": "pt"}, **header}
    if not lies:
        return _with_length(json.dumps(told).encode(), bytes(offset))
    if random.random() < 0.8:
        told = mutated_json(random, told)
    text = json_bytes(random, told)
    content = _with_length(text, random.randbytes(offset))
    if random.random() < 0.1:
        length = random.choice((*EDGE_NUMBERS, len(text) - 1, len(text) + 1)) % (1 << 64)
        content = struct.pack("<Q", length) + content[8:]
    return mutated(random, content) if random.random() < 0.15 else content


def _with_length(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


SAFETENSORS = FuzzTarget(name="safetensors", make=make_safetensors, run=read_safetensors, documented=(ModelFileError,))
FOLDER = FuzzTarget(name="safetensors-folder", make=make_folder, run=read_folder, documented=(ModelFileError,))
