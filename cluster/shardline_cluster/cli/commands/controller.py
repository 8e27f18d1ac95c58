"""`shardline controller`: keeps the replicas of one cluster, for a cluster of several hosts."""

import argparse
import os
from typing import Any, NoReturn

from shardline_cluster.cli.flags.config_file import add_config_flag
from shardline_cluster.cli.flags.launcher_flags import add_ray_flags, add_replan_flags, replan_times
from shardline_cluster.cli.flags.role_flags import add_role_flags, checked_redis_url, queue_terms
from shardline_cluster.cli.flags.telemetry_flags import add_telemetry_flags, telemetry_of
from shardline_cluster.controller.controller_config import ControllerConfig
from shardline_cluster.controller.controller_process import CONFIG_VARIABLE, LocalControllerConfig
from shardline_cluster.controller.ray_controller_config import RAY_CONFIG_VARIABLE, RayControllerConfig
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.serve.become import become
from shardline_cluster.serve.commands import DRAIN_S
from shardline_cluster.serve.ray_plan import RECONNECT_VARIABLES
from shardline_cluster.serve.role_folder import controller_folder
from shardline_cluster.serve.serve_options import LauncherKind, choose_launcher

_DESCRIPTION = """\
Runs the controller of one cluster in the foreground, until SIGTERM or Ctrl-C: it starts the replicas that `shardline
deploy` asks for, and replaces those that end. With --launcher ray, replicas run on the hosts of a Ray cluster, whose
nodes need the same Python environment, and live on when this command ends; with --launcher local they are processes of
this host, and end with it. A second controller of the same cluster waits until the first has ended.
"""
_EPILOG = """\
examples:
  shardline controller --redis-url redis://redis.internal:6379 --ray-address 10.0.0.1:6379
  shardline controller --redis-url redis://redis.internal:6379 --launcher local --cluster gpu-box-3
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "controller",
        help="run the controller, for a cluster of several hosts",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add_role_flags(parser, cluster="whose deployments it keeps")
    group = parser.add_argument_group("replicas")
    group.add_argument(
        "--launcher",
        choices=[kind.value for kind in LauncherKind],
        default=LauncherKind.LOCAL.value,
        help="who starts replicas (default %(default)s; ray with --ray-address)",
    )
    add_ray_flags(group, told="of the head of the Ray cluster to join")
    add_replan_flags(group)
    group.add_argument(
        "--drain-at-exit",
        action="store_true",
        help="with ray: let the replicas drain and end with this command, and do not leave them to the next one",
    )
    add_telemetry_flags(parser.add_argument_group("metrics and logs"))
    add_config_flag(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Becomes the controller.

    Raises:
        ConfigurationError: the flags do not fit together, or Redis or Ray will not do.
    """
    config = ControllerConfig(
        redis_url=checked_redis_url(arguments),
        prefix=arguments.redis_prefix,
        terms=queue_terms(arguments),
        cluster=arguments.cluster,
        replan=replan_times(arguments),
        telemetry=telemetry_of(arguments),
    )
    if arguments.ray_address is not None:
        _become_on_ray(config, arguments)
    if arguments.launcher == LauncherKind.RAY.value:
        raise ConfigurationError("--launcher ray needs --ray-address HOST:PORT, the head of the Ray cluster to join")
    _become_local(config)


def _become_on_ray(config: ControllerConfig, arguments: argparse.Namespace) -> NoReturn:
    choose_launcher(LauncherKind.RAY.value, ray_address=arguments.ray_address)
    on_ray = RayControllerConfig(
        controller=config,
        address=arguments.ray_address,
        node_ip=arguments.ray_node_ip,
        namespace=f"shardline-{config.prefix}-{config.cluster}",
        drain_at_exit_s=DRAIN_S if arguments.drain_at_exit else None,
    )
    become("controller.ray_controller_process", {**RECONNECT_VARIABLES, RAY_CONFIG_VARIABLE: to_json(on_ray)})


def _become_local(config: ControllerConfig) -> NoReturn:
    folder = controller_folder(config.redis_url, prefix=config.prefix, cluster=config.cluster)
    local = LocalControllerConfig(controller=config, folder=str(folder), owner_pid=os.getpid(), drain_at_exit_s=DRAIN_S)
    become("controller.controller_process", {CONFIG_VARIABLE: to_json(local)})
