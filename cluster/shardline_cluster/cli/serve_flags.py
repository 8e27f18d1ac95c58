"""The flags of `shardline serve` beside the model and its names."""

import argparse
from typing import Any

from shardline_cluster.cli.access_flags import add_access_flags
from shardline_cluster.cli.number_flags import number_from
from shardline_cluster.cli.redis_flags import add_redis_flags
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import EngineOptions
from shardline_cluster.queue.durability import Durability, parse_durability
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.serve.serve_options import SIMULATED, LauncherKind

ENGINES = ("shardline", SIMULATED)
TERMS = {"default": QueueTerms(), "short": QueueTerms.short()}
_POSITIVE = number_from(1, 2**31, whole=True)


def add_serve_flags(parser: argparse.ArgumentParser) -> None:
    """Adds them, in groups."""
    _add_network_flags(parser.add_argument_group("network"))
    add_access_flags(parser.add_argument_group("access"))
    _add_tls_flags(parser.add_argument_group("TLS"))
    _add_fleet_flags(parser.add_argument_group("fleet"))
    _add_engine_flags(parser.add_argument_group("engine"))
    _add_simulation_flags(parser.add_argument_group("simulated engine"))


def _add_network_flags(group: Any) -> None:
    group.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1", help="address to listen on (default %(default)s)"
    )
    group.add_argument(
        "--grpc-port",
        metavar="PORT",
        type=number_from(0, 65_535, whole=True),
        default=50051,
        help="0 takes any free one (default %(default)s)",
    )
    group.add_argument(
        "--routers", metavar="N", type=int, default=1, help="router processes on that port (default %(default)s)"
    )
    add_redis_flags(group, otherwise="an embedded one")
    group.add_argument(
        "--redis-prefix", metavar="TEXT", default="shardline", help="what all its keys begin with (default %(default)s)"
    )
    group.add_argument(
        "--durability",
        type=_durability,
        default=Durability.RELAXED,
        metavar="{none,relaxed}",
        help="what Redis may lose: relaxed is the last second or two, if the machine fails (default relaxed)",
    )
    group.add_argument(
        "--queue-terms", choices=sorted(TERMS), default="default", help="leases and holds; `short` is for tests"
    )


def _add_tls_flags(group: Any) -> None:
    group.add_argument(
        "--tls-cert",
        metavar="FILE",
        help="speak TLS with this certificate (PEM, followed by what leads to its CA); a file that is replaced is used "
        "from the next connection on",
    )
    group.add_argument("--tls-key", metavar="FILE", help="the key of --tls-cert, without a passphrase")
    group.add_argument(
        "--tls-client-ca", metavar="FILE", help="let in only clients with a certificate of these CAs (mutual TLS)"
    )


def _add_fleet_flags(group: Any) -> None:
    group.add_argument("--replicas", metavar="N", type=int, default=1, help="copies of the model (default %(default)s)")
    group.add_argument(
        "--launcher",
        choices=[kind.value for kind in LauncherKind],
        help="who starts replicas: ray (the default where Ray is installed) or local, plain processes",
    )
    group.add_argument("--ray-address", metavar="HOST:PORT", help="join this Ray cluster instead of starting one")


def _add_engine_flags(group: Any) -> None:
    defaults = EngineOptions()
    group.add_argument("--engine", choices=ENGINES, default=defaults.engine, help="default %(default)s")
    group.add_argument(
        "--device", metavar="DEVICE", default=defaults.device, help="cpu, cuda or cuda:N (default %(default)s)"
    )
    group.add_argument(
        "--dtype",
        choices=("auto", "float32", "float64", "bfloat16", "float16"),
        default=defaults.dtype,
        help="of weights and activations; auto is the file's own format where kernels have it (default %(default)s)",
    )
    group.add_argument(
        "--kernels",
        choices=("auto", "native", "reference"),
        default=defaults.kernels,
        help="native is compiled code for CPUs, reference is plain torch: right, and slow (default %(default)s)",
    )
    group.add_argument(
        "--max-model-len",
        metavar="N",
        type=_POSITIVE,
        help="longest prompt and output together, in tokens; by default the model's own",
    )
    group.add_argument(
        "--max-num-seqs",
        metavar="N",
        type=_POSITIVE,
        default=defaults.max_num_seqs,
        help="most sequences in a batch (default %(default)s)",
    )
    group.add_argument("--max-num-batched-tokens", metavar="N", type=_POSITIVE, help="most tokens in a step")
    _add_cache_flags(group, defaults)
    group.add_argument(
        "--chat-template", metavar="TEMPLATE", help="a Jinja file, or the template itself, instead of the model's own"
    )
    group.add_argument(
        "--generation-config",
        choices=("auto", "none"),
        default=defaults.generation_config,
        help="auto: where a client leaves temperature, top_k, top_p, min_p or repetition_penalty out, the model's own "
        "recommendation counts (generation_config.json, GGUF metadata); none: the protocol's values (default: "
        "%(default)s)",
    )


def _add_cache_flags(group: Any, defaults: EngineOptions) -> None:
    group.add_argument(
        "--kv-cache-tokens", metavar="N", type=_POSITIVE, help="size of the KV cache; by default what memory allows"
    )
    group.add_argument(
        "--kv-cache-dtype",
        choices=("auto", "bfloat16", "int8"),
        default=defaults.kv_cache_dtype,
        help="of keys and values; int8 takes half the memory and rounds them once more (default %(default)s)",
    )
    group.add_argument(
        "--block-size",
        metavar="N",
        type=_POSITIVE,
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
        choices=("same", "per-incarnation", "replay"),
        default=defaults.simulated_tokens,
        help="which tokens it makes (default %(default)s)",
    )
    group.add_argument(
        "--simulated-step-s",
        metavar="SECONDS",
        type=number_from(0, 3_600),
        default=defaults.simulated_step_s,
        help="time of a step (default %(default)s)",
    )
    group.add_argument(
        "--simulated-replay-text", metavar="TEXT", default=defaults.simulated_replay_text, help="what `replay` plays"
    )


def _durability(text: str) -> Durability:
    try:
        return parse_durability(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
