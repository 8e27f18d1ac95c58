"""One model in both formats is one model; and what a GGUF file's metadata says is what is built."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from shardline_workers.engine import EngineRequest, Sampling
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.kernels.operands import RotaryPairing
from shardline_workers.models.checkpoint import Checkpoint, open_checkpoint
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.rotary_scaling import LinearScaling
from shardline_workers.weights.tensor_names import GGUF_LLAMA, HUGGING_FACE_LLAMA
from tests.workers import tiny_checkpoint as tiny

Metadata = Mapping[str, int | float | str | list[int] | list[bool]]
METADATA: Metadata = {
    "block_count": tiny.NUM_LAYERS,
    "context_length": tiny.MAX_LEN,
    "embedding_length": tiny.HIDDEN,
    "feed_forward_length": tiny.INTERMEDIATE,
    "attention.head_count": tiny.NUM_HEADS,
    "attention.head_count_kv": tiny.NUM_KV_HEADS,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.dimension_count": tiny.HEAD_DIM,
    "rope.freq_base": 10000.0,
}


def float32_tensors() -> dict[str, np.ndarray]:
    return {name: tensor.astype(np.float32) for name, tensor in tiny.tiny_tensors().items()}


def gguf_tensors() -> dict[str, np.ndarray]:
    """As llama.cpp's converter writes them: rows of queries and keys reordered, so that neighbours turn together."""
    tensors = {}
    for name, tensor in float32_tensors().items():
        ours = HUGGING_FACE_LLAMA.ours(name)
        assert ours is not None
        num_heads = {"query": tiny.NUM_HEADS, "key": tiny.NUM_KV_HEADS}.get(ours.split(".")[-1])
        if num_heads is not None:
            halves = tensor.reshape(num_heads, 2, tiny.HEAD_DIM // 2, tiny.HIDDEN)
            tensor = halves.swapaxes(1, 2).reshape(tensor.shape)
        tensors[GGUF_LLAMA.theirs(ours)] = np.ascontiguousarray(tensor)
    return tensors


def write_gguf(
    path: Path,
    *,
    metadata: Metadata = METADATA,
    tensors: Mapping[str, np.ndarray] | None = None,
    architecture: str = "llama",
    kind: str = "model",
) -> Path:
    writer = GGUFWriter(path, architecture)
    writer.add_type(kind)
    for key, value in metadata.items():
        name = f"{architecture}.{key}"
        match value:
            case int() if value < 0:
                writer.add_int32(name, value)
            case int():
                writer.add_uint32(name, value)
            case float():
                writer.add_float32(name, value)
            case str():
                writer.add_string(name, value)
            case list():
                writer.add_array(name, value)
    for name, tensor in (gguf_tensors() if tensors is None else tensors).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def opened(path: Path) -> Checkpoint:
    with open_checkpoint(tiny.model_files(path)) as checkpoint:
        return checkpoint


def greedy_tokens(path: Path) -> list[int]:
    config = EngineConfig(
        files=tiny.model_files(path), dtype="float64", kv_cache_tokens=256, block_size=16, replicas_on_host=64
    )
    engine = load_engine(config, report=lambda _: None)
    sampling = Sampling(temperature=0.0, max_tokens=40)
    engine.add(EngineRequest(request_id="r", prompt_ids=tuple(range(30)), sampling=sampling))
    tokens: list[int] = []
    while engine.has_work():
        tokens.extend(token for step in engine.step().sequences for token in step.token_ids)
    return tokens


def test_a_model_gives_the_same_tokens_from_a_gguf_file_and_from_a_folder(tmp_path: Path) -> None:
    tiny.write_tiny_checkpoint(tmp_path / "folder", tensors=float32_tensors())
    gguf = write_gguf(tmp_path / "m.gguf")

    tokens = greedy_tokens(gguf)

    assert len(set(tokens)) > 10
    assert tokens == greedy_tokens(tmp_path / "folder")


def test_the_shape_follows_from_the_metadata(tmp_path: Path) -> None:
    shape = opened(write_gguf(tmp_path / "m.gguf")).shape

    assert (shape.hidden_size, shape.num_layers, shape.vocab_size, shape.max_len) == (32, 2, 96, 256)
    assert shape.rotary.pairing is RotaryPairing.NEIGHBOURS
    assert not shape.is_tied


def test_a_gguf_file_without_an_output_matrix_is_tied(tmp_path: Path) -> None:
    tensors = gguf_tensors()
    del tensors["output.weight"]

    gguf = write_gguf(tmp_path / "m.gguf", tensors=tensors)

    assert opened(gguf).shape.is_tied
    assert len(greedy_tokens(gguf)) == 40


def test_factors_of_a_gguf_file_stretch_the_angles(tmp_path: Path) -> None:
    plain = write_gguf(tmp_path / "plain.gguf")
    factors = np.full(tiny.HEAD_DIM // 2, 2, np.float32)

    stretched = write_gguf(tmp_path / "stretched.gguf", tensors=gguf_tensors() | {"rope_freqs.weight": factors})
    linear = write_gguf(
        tmp_path / "linear.gguf", metadata={**METADATA, "rope.scaling.type": "linear", "rope.scaling.factor": 2.0}
    )

    assert opened(linear).shape.rotary.scaling == LinearScaling(factor=2.0)
    assert greedy_tokens(stretched) == greedy_tokens(linear) != greedy_tokens(plain)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expert_count": 8}, "llama.expert_used_count: found None, expected an integer"),
        ({"expert_count": 8, "expert_shared_count": 1}, "llama.expert_shared_count: found 1, expected 0: nothing else"),
        ({"expert_count": 8, "expert_used_count": 9}, "a token takes 9 experts; it can choose from 8"),
        ({"rope.scaling.type": "longrope"}, "rope.scaling.type: found 'longrope', expected none, linear or yarn"),
        ({"rope.scaling.type": "yarn"}, "llama.rope.scaling.original_context_length: found None"),
        ({"rope.scaling.yarn_ext_factor": 0.5}, "yarn_ext_factor: found 0.5, expected 1.0, -1.0"),
        ({"attention.head_count": [4, 4]}, r"head_count: found \(4, 4\), expected an integer, the same for all layers"),
        ({"rope.freq_base": "high"}, "llama.rope.freq_base: found 'high', expected a number"),
        ({"attention.head_count_kv": 3}, "m.gguf: 4 heads cannot share 3"),
        ({"embedding_length": 64}, "shape of token_embd.weight"),
    ],
)
def test_metadata_that_is_not_supported_is_refused_by_name(
    tmp_path: Path, changes: dict[str, int | str], message: str
) -> None:
    path = write_gguf(tmp_path / "m.gguf", metadata={**METADATA, **changes})

    with pytest.raises(ModelFileError, match=message):
        greedy_tokens(path)


GEMMA3: Metadata = {
    **METADATA,
    "attention.sliding_window": 512,
    "attention.key_length": 8,
}


def gemma3_shape(tmp_path: Path, **changes: int | float | list[bool]) -> DecoderShape:
    metadata = {**GEMMA3, **{key.replace("__", "."): value for key, value in changes.items()}}
    return opened(write_gguf(tmp_path / "m.gguf", metadata=metadata, architecture="gemma3")).shape


def test_gemma_3_sees_everything_in_every_sixth_layer_unless_told_otherwise(tmp_path: Path) -> None:
    shape = gemma3_shape(tmp_path, block_count=7, rope__freq_base=1e6)

    assert [shape.window_of(layer) for layer in range(7)] == [512] * 5 + [None, 512]
    assert (shape.rotary_of(5).theta, shape.rotary_of(6).theta) == (1e6, 1e4)
    assert (shape.norm_offset, shape.embedding_scale) == (0, float(np.float32(32**0.5)))
    assert (shape.score_divisor, shape.score_softcap, shape.logit_softcap) == (None, None, None)


def test_stretched_angles_of_gemma_3_are_those_of_layers_that_see_everything(tmp_path: Path) -> None:
    metadata = {**GEMMA3, "block_count": 6, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0}
    shape = opened(write_gguf(tmp_path / "m.gguf", metadata=metadata, architecture="gemma3")).shape

    assert (shape.rotary_of(5).scaling, shape.rotary_of(0).scaling) == (LinearScaling(factor=8.0), None)


def test_what_else_a_file_of_gemma_3_may_say_is_read(tmp_path: Path) -> None:
    shape = gemma3_shape(
        tmp_path,
        attention__sliding_window_pattern=[True, False],
        rope__freq_base_swa=3e4,
        attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
    )

    assert [shape.window_of(layer) for layer in range(2)] == [512, None]
    assert shape.rotary_of(0).theta == 3e4
    assert (shape.score_softcap, shape.logit_softcap) == (50, 30)


def test_scores_of_the_deepest_gemma_3_are_scaled_by_its_width(tmp_path: Path) -> None:
    assert gemma3_shape(tmp_path, block_count=62).score_divisor == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"attention.sliding_window_pattern": [True]},
            r"sliding_window_pattern: found \(True,\), expected a number, or",
        ),
        ({"attention.sliding_window_pattern": [1, 0]}, "sliding_window_pattern: found"),
        ({"attention.sliding_window_pattern": 0}, "every 0th layer sees all tokens"),
        ({"attention.sliding_window": -3}, "m.gguf: the attention window is -3"),
        ({"final_logit_softcapping": -1.0}, "m.gguf: the softcap of logits is -1.0"),
        ({"embedding_length": -32}, "m.gguf: hidden_size is -32"),
        ({"block_count": 1 << 31}, "m.gguf: num_layers is 2147483648"),
    ],
    ids=str,
)
def test_metadata_of_gemma_3_that_make_no_sense_are_refused(tmp_path: Path, changes: Metadata, message: str) -> None:
    path = write_gguf(tmp_path / "m.gguf", metadata={**GEMMA3, **changes}, architecture="gemma3")

    with pytest.raises(ModelFileError, match=message):
        opened(path)


@pytest.mark.parametrize("kind", ["adapter", "mmproj"])
def test_what_belongs_to_a_model_and_is_none_is_refused_by_its_kind(tmp_path: Path, kind: str) -> None:
    path = write_gguf(tmp_path / "m.gguf", kind=kind)

    with pytest.raises(ModelFileError, match=rf"general.type: found '{kind}', expected model: LoRA adapters and image"):
        opened(path)


def test_an_unknown_architecture_is_refused_with_the_list(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", architecture="mamba")

    with pytest.raises(ModelFileError, match=r"general.architecture: found 'mamba', expected one of llama"):
        opened(path)


def test_a_gguf_file_without_an_embedding_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", tensors={"output_norm.weight": np.ones(32, np.float32)})

    with pytest.raises(ModelFileError, match=r"tensor token_embd\.weight"):
        opened(path)
