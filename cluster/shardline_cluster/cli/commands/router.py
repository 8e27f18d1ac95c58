"""`shardline router`: one router of a cluster of several hosts."""

import argparse
from typing import Any

from shardline_cluster.cli.flags.access_flags import access_rules, add_access_flags
from shardline_cluster.cli.flags.config_file import add_config_flag
from shardline_cluster.cli.flags.role_flags import add_role_flags, checked_redis_url, queue_terms
from shardline_cluster.cli.flags.serve_flags import add_listen_flags
from shardline_cluster.cli.flags.telemetry_flags import add_telemetry_flags, telemetry_of
from shardline_cluster.cli.flags.tls_flags import add_tls_flags, tls_files
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.replica.model_location import default_cache_folder
from shardline_cluster.router.router_config import RouterConfig
from shardline_cluster.serve.become import become
from shardline_cluster.serve.commands import ROUTER_VARIABLE

_DESCRIPTION = """\
Runs one router in the foreground, until SIGTERM or Ctrl-C: what clients speak to. Routers of one Redis serve the same
models; start as many as you like, on as many hosts, and give clients all addresses. Once it listens it prints one line
of JSON with its host and port.
"""
_EPILOG = """\
example:
  export SHARDLINE_REDIS_URL=rediss://user:password@redis.internal:6379
  shardline router --host 0.0.0.0 --api-keys-file keys.jsonl --tls-cert router.pem --tls-key router.key
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "router",
        help="run one router, for a cluster of several hosts",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add_listen_flags(parser.add_argument_group("network"))
    add_role_flags(parser, cluster="where `shardline deploy` through this router makes new deployments")
    add_access_flags(parser.add_argument_group("access"))
    add_tls_flags(parser.add_argument_group("TLS"))
    add_telemetry_flags(parser.add_argument_group("metrics and logs"))
    parser.set_defaults(metrics_port=0)  # several may run on one host
    add_config_flag(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Becomes the router.

    Raises:
        ConfigurationError: the flags do not fit together, or Redis will not do.
    """
    config = router_config(arguments)
    if config.tls is not None:
        config.tls.load()
    become("router.router_process", {ROUTER_VARIABLE: to_json(config)})


def router_config(arguments: argparse.Namespace) -> RouterConfig:
    """What the flags say. Raises as `run`."""
    return RouterConfig(
        host=arguments.host,
        port=arguments.grpc_port,
        redis_url=checked_redis_url(arguments),
        prefix=arguments.redis_prefix,
        terms=queue_terms(arguments),
        access=access_rules(arguments),
        tls=tls_files(arguments),
        cache_folder=str(default_cache_folder()),
        cluster=arguments.cluster,
        telemetry=telemetry_of(arguments),
    )
