"""The flags of `plan`: what is to be served, on what, and in which shape."""

import argparse
from typing import Any

from shardline_cluster.cli.flags.number_flags import number_from
from shardline_cluster.cli.flags.parallel_flags import add_size_flags
from shardline_cluster.planning.gpu_nodes import GpuNode, parse_nodes
from shardline_cluster.planning.plan_search import AskedPlan
from shardline_workers.sizing.kv_shape import KV_DTYPES
from shardline_workers.sizing.stored_bytes import QUANTISATIONS, Quantisation

_OTHER_NAMES = {"awq": "int4", "gptq": "int4", "float16": "fp16", "bfloat16": "bf16"}


def add_plan_flags(parser: argparse.ArgumentParser) -> None:
    """Adds them, in three groups."""
    hardware = parser.add_argument_group("hardware", "without any, all known GPUs are compared")
    exclusive = hardware.add_mutually_exclusive_group()
    exclusive.add_argument("--gpus", type=_nodes, metavar="NxGPU", help="of one node, such as 8xH100-80GB")
    exclusive.add_argument(
        "--nodes",
        type=_nodes,
        metavar="MxNxGPU",
        help="M nodes of N GPUs, such as 2x8xA100-80GB; a comma between kinds",
    )
    _add_load_flags(parser.add_argument_group("load", "what there must be room for"))
    add_size_flags(parser.add_argument_group("shape", "by default the smallest that fits"), default=None)


def asked_plan(arguments: argparse.Namespace) -> AskedPlan:
    """What the flags say of the shape."""
    return AskedPlan(
        tp=arguments.tensor_parallel_size,
        pp=arguments.pipeline_parallel_size,
        ep=arguments.expert_parallel_size,
        dp=arguments.data_parallel_size,
        shares_experts=arguments.enable_expert_parallel,
        num_replicas=arguments.replicas,
    )


def _add_load_flags(group: Any) -> None:
    group.add_argument(
        "--quantization",
        type=_quantisation,
        metavar="FORMAT",
        help=f"one of {', '.join(QUANTISATIONS)}; by default as the file has it, bf16 for a published shape",
    )
    group.add_argument(
        "--context",
        type=number_from(1, 2**31, whole=True),
        metavar="N",
        help="tokens of prompt and output together (default: 8192, or the model's own if that is less)",
    )
    group.add_argument(
        "--concurrency",
        type=number_from(1, 2**20, whole=True),
        default=1,
        metavar="N",
        help="requests at once, each of the whole context (default %(default)s)",
    )
    group.add_argument(
        "--kv-cache-dtype", choices=KV_DTYPES, default=KV_DTYPES[0], help="of keys and values (default %(default)s)"
    )
    group.add_argument(
        "--replicas",
        type=number_from(1, 1024, whole=True),
        default=1,
        metavar="N",
        help="copies of the model, on different nodes as far as there are any (default %(default)s)",
    )


def _nodes(text: str) -> tuple[GpuNode, ...]:
    try:
        return parse_nodes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _quantisation(text: str) -> Quantisation:
    known = QUANTISATIONS.get(_OTHER_NAMES.get(text.lower(), text.lower()))
    if known is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no format: it must be one of {', '.join(QUANTISATIONS)}")
    return known
