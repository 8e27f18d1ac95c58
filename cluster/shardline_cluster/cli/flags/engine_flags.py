"""The flags that say how a replica's engine is built: of `serve`, and of `deploy`."""

import argparse
import re
from dataclasses import fields
from typing import Any

from shardline_cluster.cli.flags.number_flags import NumberType, number_from
from shardline_cluster.cli.flags.parallel_flags import add_shape_flags
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import EngineOptions
from shardline_cluster.fleet.engine_bounds import CHOICES, NUMBERS, wrong_options
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.text.load_text_model import given_template

# What one field's error says of another one, in words that are no others'.
_FIELD = re.compile("|".join(rf"\b{field.name}\b" for field in fields(EngineOptions) if "_" in field.name))


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Adds them, in three groups."""
    _add_engine_flags(parser.add_argument_group("engine", "how replicas compute, and how much they hold"))
    add_shape_flags(parser.add_argument_group("shape", "how many ranks share a model, and what"))
    _add_simulation_flags(parser.add_argument_group("simulated engine", "tokens without a model, for tests"))


def engine_options(arguments: argparse.Namespace) -> EngineOptions:
    """What the flags say, with a chat template's text instead of the path of its file, which only this machine has.

    Raises:
        ConfigurationError: the template cannot be read, or a value is out of bounds.
    """
    options = EngineOptions(
        engine=arguments.engine,
        device=arguments.device,
        dtype=arguments.dtype,
        kernels=arguments.kernels,
        max_model_len=arguments.max_model_len,
        max_num_seqs=arguments.max_num_seqs,
        max_num_batched_tokens=arguments.max_num_batched_tokens,
        kv_cache_tokens=arguments.kv_cache_tokens,
        kv_cache_dtype=arguments.kv_cache_dtype,
        block_size=arguments.block_size,
        enable_prefix_caching=arguments.enable_prefix_caching,
        chat_template=_template_text(arguments.chat_template),
        generation_config=arguments.generation_config,
        tensor_parallel_size=arguments.tensor_parallel_size,
        pipeline_parallel_size=arguments.pipeline_parallel_size,
        expert_parallel_size=arguments.expert_parallel_size,
        data_parallel_size=arguments.data_parallel_size,
        enable_expert_parallel=arguments.enable_expert_parallel,
        rank_resource=arguments.rank_resource,
        replan=arguments.replan,
        simulated_tokens=arguments.simulated_tokens,
        simulated_step_s=arguments.simulated_step_s,
        simulated_replay_text=arguments.simulated_replay_text,
    )
    for wrong in wrong_options(options):
        raise ConfigurationError(f"{_flag(wrong.field)} {_FIELD.sub(lambda field: _flag(field[0]), wrong.what)}")
    return options


def _flag(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _add_engine_flags(group: Any) -> None:
    defaults = EngineOptions()
    group.add_argument("--engine", choices=CHOICES["engine"], default=defaults.engine, help="default %(default)s")
    group.add_argument(
        "--device", metavar="DEVICE", default=defaults.device, help="cpu, cuda or cuda:N (default %(default)s)"
    )
    group.add_argument(
        "--dtype",
        choices=CHOICES["dtype"],
        default=defaults.dtype,
        help="of weights and activations; auto is the file's own format where kernels have it (default %(default)s)",
    )
    group.add_argument(
        "--kernels",
        choices=CHOICES["kernels"],
        default=defaults.kernels,
        help="native is compiled code for CPUs, reference is plain torch: right, and slow (default %(default)s)",
    )
    group.add_argument(
        "--max-model-len",
        metavar="N",
        type=_number("max_model_len"),
        help="longest prompt and output together, in tokens; by default the model's own",
    )
    group.add_argument(
        "--max-num-seqs",
        metavar="N",
        type=_number("max_num_seqs"),
        default=defaults.max_num_seqs,
        help="most sequences in a batch (default %(default)s)",
    )
    group.add_argument(
        "--max-num-batched-tokens", metavar="N", type=_number("max_num_batched_tokens"), help="most tokens in a step"
    )
    _add_cache_flags(group, defaults)
    group.add_argument(
        "--chat-template", metavar="TEMPLATE", help="a Jinja file, or the template itself, instead of the model's own"
    )
    group.add_argument(
        "--generation-config",
        choices=CHOICES["generation_config"],
        default=defaults.generation_config,
        help="auto: where a client leaves temperature, top_k, top_p, min_p or repetition_penalty out, the model's own "
        "recommendation counts (generation_config.json, GGUF metadata); none: the protocol's values (default: "
        "%(default)s)",
    )


def _add_cache_flags(group: Any, defaults: EngineOptions) -> None:
    group.add_argument(
        "--kv-cache-tokens",
        metavar="N",
        type=_number("kv_cache_tokens"),
        help="size of the KV cache; by default what memory allows",
    )
    group.add_argument(
        "--kv-cache-dtype",
        choices=CHOICES["kv_cache_dtype"],
        default=defaults.kv_cache_dtype,
        help="of keys and values; int8 takes half the memory and rounds them once more (default %(default)s)",
    )
    group.add_argument(
        "--block-size",
        metavar="N",
        type=_number("block_size"),
        default=defaults.block_size,
        help="tokens in a block of the KV cache; by default what the kernels like best",
    )
    group.add_argument(
        "--enable-prefix-caching",
        action=argparse.BooleanOptionalAction,
        default=defaults.enable_prefix_caching,
        help="reuse what equal beginnings of prompts have computed (the default)",
    )


def _add_simulation_flags(group: Any) -> None:
    defaults = EngineOptions()
    group.add_argument(
        "--simulated-tokens",
        choices=CHOICES["simulated_tokens"],
        default=defaults.simulated_tokens,
        help="which tokens it makes (default %(default)s)",
    )
    group.add_argument(
        "--simulated-step-s",
        metavar="SECONDS",
        type=_number("simulated_step_s"),
        default=defaults.simulated_step_s,
        help="time of a step (default %(default)s)",
    )
    group.add_argument(
        "--simulated-replay-text", metavar="TEXT", default=defaults.simulated_replay_text, help="what `replay` plays"
    )


def _number(field: str) -> NumberType:
    bounds = NUMBERS[field]
    return number_from(bounds.least, bounds.most, whole=bounds.whole)


def _template_text(template: str | None) -> str | None:
    try:
        return None if template is None else given_template(template)
    except ModelFileError as error:
        raise ConfigurationError(f"--chat-template: {error}") from error
