"""GGUF metadata in the words of a config.json, and bytes by layer in files of both kinds."""

from pathlib import Path

import pytest

from shardline_workers.files.model_source import ModelFiles
from shardline_workers.model_summary import summarise
from shardline_workers.sizing.config_shape import read_model_shape
from shardline_workers.sizing.gguf_words import in_config_words
from shardline_workers.sizing.model_header import HeaderTensor, read_model_header
from shardline_workers.sizing.model_parts import num_parameters
from shardline_workers.sizing.model_shape import LatentAttention, ModelShape
from shardline_workers.sizing.stored_bytes import file_bytes, parts_bytes, weights_bytes
from tests.workers.tiny_checkpoint import write_tiny_checkpoint

DEEPSEEK = {
    "general.architecture": "deepseek2",
    "deepseek2.block_count": 4,
    "deepseek2.embedding_length": 64,
    "deepseek2.feed_forward_length": 96,
    "deepseek2.context_length": 512,
    "deepseek2.attention.head_count": 4,
    "deepseek2.attention.head_count_kv": 1,
    "deepseek2.attention.q_lora_rank": 24,
    "deepseek2.attention.kv_lora_rank": 16,
    "deepseek2.rope.dimension_count": 8,
    "deepseek2.leading_dense_block_count": 1,
    "deepseek2.expert_count": 8,
    "deepseek2.expert_used_count": 2,
    "deepseek2.expert_shared_count": 1,
    "deepseek2.expert_feed_forward_length": 32,
}
TENSORS = {"token_embd.weight": (100, 64), "output.weight": (100, 64)}


def shape_of(metadata: dict[str, object]) -> ModelShape:
    return read_model_shape(in_config_words(Path("m.gguf"), metadata, TENSORS))


@pytest.mark.parametrize(
    "heads",
    [
        {"attention.key_length": 20, "attention.value_length": 12},
        {
            "attention.key_length": 24,
            "attention.value_length": 16,
            "attention.key_length_mla": 20,
            "attention.value_length_mla": 12,
        },
    ],
)
def test_old_and_new_conversions_of_latent_attention_say_the_same(heads: dict[str, int]) -> None:
    shape = shape_of({**DEEPSEEK, **{f"deepseek2.{key}": value for key, value in heads.items()}})

    assert shape.attention == LatentAttention(
        num_heads=4, query_rank=24, kv_rank=16, nope_dim=12, rope_dim=8, value_dim=12
    )
    assert [layer.experts is not None for layer in shape.layers] == [False, True, True, True]
    assert (shape.vocab_size, shape.is_tied, shape.num_experts) == (100, False, 8)


def test_windows_by_layer_are_read_from_gguf() -> None:
    plain = {"block_count": 2, "embedding_length": 64, "feed_forward_length": 96, "context_length": 512}
    windows = {"attention.sliding_window": 32, "attention.sliding_window_pattern": (True, False)}
    numbers = {f"gemma3.{key}": value for key, value in {**plain, "attention.head_count": 2, **windows}.items()}

    assert shape_of({"general.architecture": "gemma3", **numbers}).kv.windows == (32, None)


def test_a_folder_is_counted_to_the_byte(tmp_path: Path) -> None:
    header = read_model_header(write_tiny_checkpoint(tmp_path))
    shape = read_model_shape(header.facts)

    stored = file_bytes("its own", shape, header.tensors)

    assert num_parameters(shape) == sum(tensor.num_parameters for tensor in header.tensors)
    assert weights_bytes(shape, stored) == sum(tensor.num_bytes for tensor in header.tensors)
    assert sum(parts_bytes(shape, stored).values()) == pytest.approx(
        weights_bytes(shape, stored), abs=len(shape.layers)
    )


def test_towers_that_see_and_heads_that_draft_are_no_weights_of_the_text(tmp_path: Path) -> None:
    header = read_model_header(write_tiny_checkpoint(tmp_path))
    shape = read_model_shape(header.facts)
    more = (
        HeaderTensor("vision_tower.encoder.layers.0.weight", "F64", (999,), 999),
        HeaderTensor("mtp.layers.0.weight", "F64", (999,), 999),
        HeaderTensor(f"model.layers.{shape.num_layers}.mlp.weight", "F64", (999,), 999),
    )

    stored = file_bytes("its own", shape, (*header.tensors, *more))

    assert weights_bytes(shape, stored) == sum(tensor.num_bytes for tensor in header.tensors)


@pytest.mark.model
def test_the_packaged_model_is_its_published_shape(smollm2: ModelFiles) -> None:
    header = read_model_header(smollm2)
    shape = read_model_shape(header.facts)

    stored = file_bytes("its own", shape, header.tensors)

    assert num_parameters(shape) == summarise(smollm2).num_parameters == 134_515_008
    assert weights_bytes(shape, stored) == pytest.approx(summarise(smollm2).weights_bytes, rel=1e-6)
