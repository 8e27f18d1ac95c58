"""GPUs as people write them."""

import pytest

from shardline_cluster.planning.gpu_models import GPU_MODELS, GpuModel, find_gpu
from shardline_cluster.planning.gpu_nodes import parse_nodes


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("8xH100-80GB", [("node-0", "H100-80GB", 8)]),
        ("2x8xA100-80GB", [("node-0", "A100-80GB", 8), ("node-1", "A100-80GB", 8)]),
        ("l4", [("node-0", "L4", 1)]),
        ("4 x RTX 4090", [("node-0", "RTX-4090", 4)]),
        ("2xH200, 1x4xL40S", [("node-0", "H200-141GB", 2), ("node-1", "L40S", 4)]),
    ],
)
def test_nodes_are_read_as_written(text: str, nodes: list[tuple[str, str, int]]) -> None:
    assert [(node.name, node.gpu.name, len(node.free_gpus)) for node in parse_nodes(text)] == nodes


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "'' are no GPUs: write 8xH100-80GB"),
        ("8x", "'8x' are no GPUs"),
        ("0xL4", "0 GPUs in a node are out of bounds: it must be 1 to 256"),
        ("99999999999999999999xL4", "out of bounds"),
        ("2000x8xL4", "2000 nodes are out of bounds: it must be 1 to 1024"),
        ("1000xL4,1x8xL4", "1000 GPUs in a node"),
        ("1000x8xL4,100x8xL4", "more than 1024 nodes"),
        ("8xA100", "may mean A100-40GB or A100-80GB"),
        ("8xTPU", "'TPU' is no GPU that is known here: it must be one of T4"),
    ],
)
def test_what_is_written_wrong_is_told_with_what_would_be_right(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_nodes(text)


@pytest.mark.parametrize("gpu", GPU_MODELS, ids=lambda gpu: gpu.name)
def test_every_card_is_found_by_its_names(gpu: GpuModel) -> None:
    names = (gpu.name, gpu.name.lower(), f"NVIDIA {gpu.name}", *gpu.aliases)

    assert {find_gpu(name) for name in names} == {gpu}


def test_a_card_without_units_for_an_arithmetic_computes_in_16_bits() -> None:
    assert find_gpu("A100-80GB").flops_s("fp8") == find_gpu("A100-80GB").flops_s("fp16") == 312e12
    assert find_gpu("H100").flops_s("fp8") == 1979e12
