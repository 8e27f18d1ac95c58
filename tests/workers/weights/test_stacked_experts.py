from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from shardline_workers.files.safetensors_folder import SafetensorsFolder
from shardline_workers.weights.stacked_experts import UnstackedSource
from shardline_workers.weights.tensor_names import GGUF_MIXTRAL, HUGGING_FACE_QWEN3_MOE
from shardline_workers.weights.tensor_source import SafetensorsTensorSource

PREFIX = "model.layers.2.mlp.experts."
GATE_UP = np.arange(3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5)
DOWN = np.arange(3 * 5 * 2, dtype=np.float32).reshape(3, 5, 2)
PLAIN = np.ones(5, dtype=np.float32)


def source(folder: Path, gate_up: np.ndarray = GATE_UP) -> UnstackedSource:
    tensors = {f"{PREFIX}gate_up_proj": gate_up, f"{PREFIX}down_proj": DOWN, "model.norm.weight": PLAIN}
    save_file(tensors, folder / "model.safetensors")
    return UnstackedSource(SafetensorsTensorSource(folder, SafetensorsFolder.open(folder)), HUGGING_FACE_QWEN3_MOE)


@pytest.mark.parametrize("expert", range(3))
def test_each_experts_matrices_are_read_alone(tmp_path: Path, expert: int) -> None:
    unstacked = source(tmp_path)
    expected = {
        f"{PREFIX}gate_up_proj[{expert}].gate": GATE_UP[expert, :2],
        f"{PREFIX}gate_up_proj[{expert}].up": GATE_UP[expert, 2:],
        f"{PREFIX}down_proj[{expert}].down": DOWN[expert],
        "model.norm.weight": PLAIN,
    }

    for name, numbers in expected.items():
        stored = unstacked.stored(name)
        assert unstacked.shapes[name] == stored.shape == numbers.shape
        assert len(stored.data) == numbers.nbytes, "no other expert's bytes"
        assert np.array_equal(unstacked.numbers(name, stored), numbers)


def test_names_of_the_checkpoint_and_ours_go_both_ways() -> None:
    names = {
        f"{PREFIX}gate_up_proj[12].up": "layers.2.experts.12.up",
        f"{PREFIX}12.down_proj.weight": "layers.2.experts.12.down",
        "model.layers.2.mlp.gate.weight": "layers.2.router",
    }

    assert {name: HUGGING_FACE_QWEN3_MOE.ours(name) for name in names} == names
    assert HUGGING_FACE_QWEN3_MOE.theirs("layers.2.experts.12.down") == f"{PREFIX}12.down_proj.weight"
    assert GGUF_MIXTRAL.theirs("layers.2.experts.12.down") == "blk.2.ffn_down_exps.weight[12].down"
    assert HUGGING_FACE_QWEN3_MOE.ours(f"{PREFIX}012.down_proj.weight") is None


def test_a_stack_of_other_dimensions_keeps_its_name(tmp_path: Path) -> None:
    flat = source(tmp_path, gate_up=GATE_UP.reshape(12, 5))

    assert flat.shapes[f"{PREFIX}gate_up_proj"] == (12, 5)


def test_a_matrix_that_the_stack_has_not_is_refused(tmp_path: Path) -> None:

    source(tmp_path)
    stack = SafetensorsTensorSource(tmp_path, SafetensorsFolder.open(tmp_path)).stored(f"{PREFIX}down_proj")

    with pytest.raises(ValueError, match="matrix 3 was asked for, but the stack has 3"):
        stack.entry(3)
