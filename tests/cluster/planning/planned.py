"""Needs and nodes for tests of planning."""

from shardline_cluster.planning.gpu_models import GpuModel
from shardline_cluster.planning.gpu_nodes import GpuNode
from shardline_cluster.planning.model_needs import ModelNeeds, Workload
from shardline_workers.sizing.published_shapes import published_shape
from shardline_workers.sizing.stored_bytes import QUANTISATIONS


def needs_of(
    name: str, quantisation: str = "bf16", *, context: int = 8192, concurrency: int = 1, kv_dtype: str = "bfloat16"
) -> ModelNeeds:
    shape = published_shape(name)
    assert shape is not None
    workload = Workload(context=context, concurrency=concurrency, kv_dtype=kv_dtype)
    return ModelNeeds(shape=shape, stored=QUANTISATIONS[quantisation], workload=workload)


def a_node(name: str, num_gpus: int, *, memory_gib: float = 80.0, domain: str = "") -> GpuNode:
    gpu = GpuModel(f"card-{memory_gib:g}", memory_gib, bandwidth_gb_s=1000, fp16_tflops=100)
    return GpuNode(name=name, gpu=gpu, free_gpus=tuple(range(num_gpus)), domain=domain)
