"""Nodes with slots for ranks, and deployments that want them, for the tests of gangs."""

from dataclasses import replace

from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.planning.model_size import ModelSize
from shardline_cluster.planning.rank_nodes import RankNode
from shardline_workers.sizing.model_header import HeaderTensor
from shardline_workers.sizing.published_shapes import published_shape
from shardline_workers.sizing.stored_bytes import file_bytes
from tests.cluster.controller.fleets import deployment

GIB = 1 << 30


def a_node(name: str, free: int, total: int | None = None, *, gib: float = 80, resource: str = "GPU") -> RankNode:
    return RankNode(
        name=name,
        resource=resource,
        host=f"10.0.0.{name}",
        free_slots=free,
        num_slots=free if total is None else total,
        slot_bytes=int(gib * GIB),
    )


def sharded(num_replicas: int = 1, *, tp: int | None = 1, pp: int | None = 1, **options: object) -> Deployment:
    """A simulated model: it fits everywhere."""
    plain = deployment(num_replicas, device="cuda")
    shaped = replace(plain.options, tensor_parallel_size=tp, pipeline_parallel_size=pp, **options)  # type: ignore[arg-type]
    return replace(plain, options=shaped)


def sized(wanted: Deployment, model: str) -> Deployment:
    """The same of a model with a published shape, in 16 bits."""
    shape = published_shape(model)
    assert shape is not None
    tensors = [HeaderTensor("embed_tokens", "BF16", (shape.vocab_size, shape.hidden_size), 0)]
    stored = replace(
        file_bytes("its own BF16", shape, tensors),
        layers=(2.0,) * shape.num_layers,
        embedding=2.0,
        head=2.0,
        norm=2.0,
    )
    return replace(wanted, size=ModelSize(shape=shape, stored=stored))
