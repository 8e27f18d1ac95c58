"""`shardline plan MODEL`: which GPUs a model needs, how it would be shared among them, and how fast that can be."""

import argparse
from typing import Any

from shardline_cluster.cli.flags.plan_flags import add_plan_flags, asked_plan
from shardline_cluster.cli.plan_text import gpu_table, plan_facts, plan_text, size_facts, size_text
from shardline_cluster.cli.sized_model import SizedModel, size_model
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.planning.gpu_nodes import GpuNode
from shardline_cluster.planning.model_needs import ModelNeeds, Workload
from shardline_cluster.planning.plan_search import AskedPlan, ChosenPlan, NoPlan, choose_plan
from shardline_cluster.planning.remedies import enough_nodes, fitting_format, on_each_gpu
from shardline_cluster.replica.model_location import default_cache_folder

_DEFAULT_CONTEXT = 8192
_FAILED = 1

_DESCRIPTION = """\
Tells what a model takes of memory, the smallest shape in which it fits on given GPUs, and the tokens a second that
their data sheets allow at most. MODEL is a published shape (llama-3.3-70b, qwen3-30b-a3b, deepseek-v3 and so on; an
unknown name lists them), a model in the cache, a .gguf file or a folder. Reads headers only, and fetches nothing.
"""
_EPILOG = """\
examples:
  shardline plan llama-3.3-70b
  shardline plan llama-3.3-70b --gpus 8xH100-80GB --context 32768 --concurrency 16
  shardline plan deepseek-v3 --nodes 2x8xH100-80GB --quantization fp8
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "plan",
        help="tell which GPUs a model needs",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a published shape, a name that `shardline models` shows, a path"
    )
    add_plan_flags(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Plans; 1 where nothing fits.

    Raises:
        ConfigurationError: there is no such model, its context is shorter than what was asked for, or it does not fit.
    """
    model = size_model(arguments.model, arguments.quantization, default_cache_folder())
    needs = ModelNeeds(shape=model.shape, stored=model.stored, workload=_workload(arguments, model))
    nodes: tuple[GpuNode, ...] = arguments.gpus or arguments.nodes or ()
    asked = asked_plan(arguments)
    if arguments.json:
        return _print_json(model, needs, nodes, asked)
    print(size_text(size_facts(model, needs)))
    if not nodes:
        print(f"\n{gpu_table(on_each_gpu(needs, asked))}")
        return 0
    found = choose_plan(needs, nodes, asked)
    if isinstance(found, NoPlan):
        raise ConfigurationError(f"{found.reason}. {_remedy(found, needs, nodes, asked)}")
    print(plan_text(found, concurrency=needs.workload.concurrency), end="")
    return 0


def _workload(arguments: argparse.Namespace, model: SizedModel) -> Workload:
    own = model.shape.context_tokens
    context = arguments.context or min(_DEFAULT_CONTEXT, own)
    if context > own:
        raise ConfigurationError(f"--context is {context}; {model.name} was made for 1 to {own} tokens")
    return Workload(context=context, concurrency=arguments.concurrency, kv_dtype=arguments.kv_cache_dtype)


def _print_json(model: SizedModel, needs: ModelNeeds, nodes: tuple[GpuNode, ...], asked: AskedPlan) -> int:
    facts = size_facts(model, needs)
    if not nodes:
        gpus = {name: plan_facts(chosen) if chosen else None for name, chosen in on_each_gpu(needs, asked)}
        print(to_json({**facts, "gpus": gpus}))
        return 0
    found = choose_plan(needs, nodes, asked)
    if isinstance(found, ChosenPlan):
        print(to_json({**facts, "plan": plan_facts(found)}))
        return 0
    nearest = plan_facts(found.nearest) if found.nearest else None
    remedy = _remedy(found, needs, nodes, asked)
    print(to_json({**facts, "plan": None, "reason": found.reason, "remedy": remedy, "nearest": nearest}))
    return _FAILED


def _remedy(found: NoPlan, needs: ModelNeeds, nodes: tuple[GpuNode, ...], asked: AskedPlan) -> str:
    """The nearest plan that works; where none does, what would have to change."""
    if found.nearest is not None:
        return f"The nearest plan that fits is {found.nearest.plan}"
    ways = ["a shorter --context or less --concurrency"]
    free = AskedPlan(num_replicas=asked.num_replicas)
    if name := fitting_format(needs, nodes, free):
        ways.insert(0, f"--quantization {name}")
    if enough := enough_nodes(needs, nodes[0], free):
        ways.insert(0, f"{enough[0]} nodes of {len(nodes[0].free_gpus)} x {nodes[0].gpu.name} ({enough[1].plan})")
    return f"What may help: {', or '.join(ways)}"
