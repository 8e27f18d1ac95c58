"""A plan as people read it, and as programs do."""

from collections.abc import Iterator, Sequence
from typing import Any

from shardline_cluster.cli.sized_model import SizedModel
from shardline_cluster.cli.text_table import table
from shardline_cluster.planning.gang_placement import Bundle
from shardline_cluster.planning.model_needs import ModelNeeds
from shardline_cluster.planning.plan_search import ChosenPlan
from shardline_workers.files.byte_size import shown_bytes
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.sizing.model_parts import num_active_parameters, num_parameters
from shardline_workers.sizing.stored_bytes import parts_bytes, weights_bytes


def size_facts(model: SizedModel, needs: ModelNeeds) -> dict[str, Any]:
    """What the model takes, wherever it runs."""
    workload, kv = needs.workload, needs.shape.kv
    num_tokens = workload.context * workload.concurrency
    return {
        "model": model.name,
        "format": needs.stored.name,
        "num_parameters": num_parameters(needs.shape),
        "num_active_parameters": num_active_parameters(needs.shape),
        "weights_bytes": weights_bytes(needs.shape, needs.stored),
        "part_bytes": {part.value: num_bytes for part, num_bytes in parts_bytes(needs.shape, needs.stored).items()},
        "context": workload.context,
        "concurrency": workload.concurrency,
        "kv_cache_dtype": workload.kv_dtype,
        "kv_bytes_per_token": kv.held_bytes(1, dtype=workload.kv_dtype),
        "kv_bytes": kv.held_bytes(num_tokens, dtype=workload.kv_dtype),
        "kv_bytes_within_windows": workload.concurrency * kv.seen_bytes(workload.context, dtype=workload.kv_dtype),
    }


def size_text(facts: dict[str, Any]) -> str:
    """The same in a few lines."""
    parts = ", ".join(f"{name} {shown_bytes(size)}" for name, size in facts["part_bytes"].items())
    requests = (
        f"{facts['concurrency']:,} request{'s' if facts['concurrency'] > 1 else ''} of {facts['context']:,} tokens"
    )
    lines = [
        f"{facts['model']}: {facts['num_parameters'] / 1e9:,.2f} billion parameters, "
        f"{facts['num_active_parameters'] / 1e9:,.2f} billion at work for a token",
        f"weights      {shown_bytes(facts['weights_bytes'])} as {facts['format']} ({parts})",
        f"KV cache     {shown_bytes(facts['kv_bytes'])} as {facts['kv_cache_dtype']} for {requests}, "
        f"{shown_bytes(facts['kv_bytes_per_token'])} a token",
    ]
    if facts["kv_bytes_within_windows"] < facts["kv_bytes"]:
        lines.append(
            f"             (layers with a window keep all of it; what they see would be "
            f"{shown_bytes(facts['kv_bytes_within_windows'])} in all)"
        )
    return "\n".join(lines)


def plan_facts(chosen: ChosenPlan) -> dict[str, Any]:
    """The plan for programs."""
    plan, bounds = chosen.plan, chosen.roofline
    return {
        "tensor_parallel_size": plan.tp,
        "pipeline_parallel_size": plan.pp,
        "expert_parallel_size": plan.ep,
        "data_parallel_size": plan.dp,
        "num_ranks": plan.num_ranks,
        "slowest_gpu": chosen.slowest_gpu.name,
        "stages": [
            {
                "first_layer": stage.layers.start,
                "num_layers": len(stage.layers),
                "weights_bytes_per_gpu": stage.weights_bytes,
                "kv_bytes_per_gpu": stage.kv_bytes,
                "overhead_bytes_per_gpu": stage.overhead_bytes,
            }
            for stage in chosen.stages
        ],
        "replicas": [[_bundle_facts(bundle) for bundle in bundles] for bundles in chosen.replicas],
        "roofline_tokens_per_s": {
            "decode_alone": round(bounds.decode_alone, 1),
            "decode_together": round(bounds.decode_together, 1),
            "prefill": round(bounds.prefill, 1),
        },
    }


def _bundle_facts(bundle: Bundle) -> dict[str, Any]:
    return {
        "node": bundle.node,
        "gpu": bundle.gpu.name,
        "gpus": list(bundle.gpus),
        "ranks": list(bundle.ranks),
        "bytes_per_gpu": bundle.rank_bytes,
        "usable_bytes_per_gpu": bundle.gpu.usable_bytes,
    }


def plan_text(chosen: ChosenPlan, *, concurrency: int) -> str:
    """The plan in some lines and a table, each line ended."""
    plan, bounds = chosen.plan, chosen.roofline
    replicas = f", {len(chosen.replicas)} replicas" if len(chosen.replicas) > 1 else ""
    header = ("STAGE", "LAYERS", "WEIGHTS", "KV CACHE", "OVERHEAD", "OF A GPU", "USABLE", "WHERE")
    together = f", {concurrency:,} together {bounds.decode_together:,.0f}" if concurrency > 1 else ""
    lines = [
        f"plan         {plan}: {plan.num_ranks} x {chosen.slowest_gpu.name}{replicas}\n\n",
        table(header, list(_stage_rows(chosen))),
        f"\nroofline     one request {bounds.decode_alone:,.1f} tokens/s{together}; prefill {bounds.prefill:,.0f}\n",
        "             (bounds of memory and matrix units; links between GPUs not counted)\n",
    ]
    if plan.num_ranks > 1:
        lines.append(f"serve it so  {_flags(plan)}\n")
    return "".join(lines)


def _flags(plan: ParallelPlan) -> str:
    """The flags of `serve` that ask for this shape."""
    sizes = {"tensor": plan.tp, "pipeline": plan.pp, "expert": plan.ep, "data": plan.dp}
    return " ".join(["--device cuda", *(f"--{name}-parallel-size {size}" for name, size in sizes.items() if size > 1)])


def _stage_rows(chosen: ChosenPlan) -> Iterator[tuple[str, ...]]:
    for number, stage in enumerate(chosen.stages):
        bundles = [bundle for bundles in chosen.replicas for bundle in bundles if bundle.stage == number]
        yield (
            str(number),
            f"{stage.layers.start}-{stage.layers.stop - 1}",
            shown_bytes(stage.weights_bytes),
            shown_bytes(stage.kv_bytes),
            shown_bytes(stage.overhead_bytes),
            shown_bytes(stage.total_bytes),
            shown_bytes(min(bundle.gpu.usable_bytes for bundle in bundles)),
            _places(bundles),
        )


def _places(bundles: Sequence[Bundle]) -> str:
    return "; ".join(f"{bundle.node} GPU {','.join(map(str, bundle.gpus))}" for bundle in bundles)


def gpu_table(rows: Sequence[tuple[str, ChosenPlan | None]]) -> str:
    """What each known card makes of the model."""
    header = ("GPU", "NEEDED", "PLAN", "OF A GPU", "USABLE", "TOKENS/S ALONE", "TOGETHER")
    return table(header, [_gpu_row(name, chosen) for name, chosen in rows])


def _gpu_row(name: str, chosen: ChosenPlan | None) -> tuple[str, ...]:
    if chosen is None:
        return (name, "too many", "-", "-", "-", "-", "-")
    fullest = max(stage.total_bytes for stage in chosen.stages)
    return (
        name,
        str(chosen.plan.num_ranks * len(chosen.replicas)),
        str(chosen.plan),
        shown_bytes(fullest),
        shown_bytes(chosen.slowest_gpu.usable_bytes),
        f"{chosen.roofline.decode_alone:,.1f}",
        f"{chosen.roofline.decode_together:,.0f}",
    )
