"""What is told of a model from its headers, for both formats and for files that say little."""

import json
from pathlib import Path

import pytest

from shardline_workers.files.model_source import ModelFiles, ModelKind
from shardline_workers.model_summary import summarise
from tests.workers.files.gguf_bytes import TensorInfo, gguf_bytes, pair
from tests.workers.tiny_checkpoint import (
    HEAD_DIM,
    MAX_LEN,
    NUM_KV_HEADS,
    NUM_LAYERS,
    tiny_tensors,
    write_tiny_checkpoint,
)


def a_gguf(tmp_path: Path, *pairs: bytes) -> ModelFiles:
    path = tmp_path / "m.gguf"
    tensors = [TensorInfo("a", [32, 4], ggml_type=2), TensorInfo("b", [8], offset=96)]
    path.write_bytes(
        gguf_bytes(pairs=[pair("general.architecture", "llama"), *pairs], tensors=tensors, data=bytes(128))
    )
    return ModelFiles(source="m", kind=ModelKind.GGUF, path=path, digest="0" * 16)


def test_a_folder_is_told_by_its_configuration_and_its_tensors(tmp_path: Path) -> None:
    summary = summarise(write_tiny_checkpoint(tmp_path))

    num_parameters = sum(tensor.size for tensor in tiny_tensors().values())
    assert (summary.format, summary.family, summary.main_type) == ("safetensors", "LlamaForCausalLM", "F64")
    assert (summary.num_parameters, summary.weights_bytes) == (num_parameters, 8 * num_parameters)
    assert (summary.num_layers, summary.num_kv_heads, summary.context_tokens) == (NUM_LAYERS, NUM_KV_HEADS, MAX_LEN)
    assert summary.kv_bytes(10) == 10 * NUM_LAYERS * NUM_KV_HEADS * HEAD_DIM * 2 * 2


def test_a_gguf_file_is_told_by_its_metadata(tmp_path: Path) -> None:
    facts = {"block_count": 2, "embedding_length": 128, "attention.head_count": 2, "context_length": 512}
    numbers = [pair(f"llama.{key}", value) for key, value in facts.items()]

    summary = summarise(a_gguf(tmp_path, *numbers, pair("general.license", "mit")))

    assert (summary.format, summary.family, summary.licence) == ("GGUF", "llama", "mit")
    assert dict(summary.type_bytes) == {"Q4_0": 72, "F32": 32}
    assert (summary.num_parameters, summary.context_tokens) == (136, 512)
    assert (summary.num_heads, summary.num_kv_heads, summary.head_dim) == (2, 2, 64)


def test_int8_keys_and_values_take_about_half(tmp_path: Path) -> None:
    facts = {"block_count": 1, "embedding_length": 64, "attention.head_count": 1}

    summary = summarise(a_gguf(tmp_path, *(pair(f"llama.{key}", value) for key, value in facts.items())))

    assert (summary.kv_bytes(1), summary.kv_bytes(1, dtype="int8")) == (256, 136)


def test_heads_that_differ_by_layer_count_as_the_most(tmp_path: Path) -> None:
    summary = summarise(a_gguf(tmp_path, pair("llama.attention.head_count", [4, 8])))

    assert summary.num_heads == 8


def test_what_the_files_do_not_say_is_none(tmp_path: Path) -> None:
    summary = summarise(a_gguf(tmp_path))

    assert (summary.num_layers, summary.head_dim, summary.vocab_size, summary.kv_bytes(1)) == (None, None, None, None)


def test_a_model_that_sees_is_told_by_its_text_part(tmp_path: Path) -> None:
    files = write_tiny_checkpoint(tmp_path)
    config = {"architectures": ["SeesForConditionalGeneration"], "text_config": {"num_hidden_layers": 7}}
    (tmp_path / "config.json").write_text(json.dumps(config))

    summary = summarise(files)

    assert (summary.family, summary.num_layers) == ("SeesForConditionalGeneration", 7)


@pytest.mark.model
def test_the_packaged_model_is_told_in_full(smollm2: ModelFiles) -> None:
    summary = summarise(smollm2)

    assert (summary.num_parameters, summary.num_layers, summary.licence) == (134_515_008, 30, "apache-2.0")
    assert summary.main_type == "Q4_1"
