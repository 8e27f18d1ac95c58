"""Flags of what processes tell of themselves: of every command that starts some."""

import argparse
from typing import Any

from shardline_cluster.cli.flags.number_flags import number_from
from shardline_cluster.telemetry.telemetry_config import LogFormat, LogLevel, TelemetryConfig


def add_telemetry_flags(group: Any) -> None:
    """Adds them to a parser, or a group of one."""
    defaults = TelemetryConfig()
    group.add_argument(
        "--metrics-host",
        metavar="ADDRESS",
        default=defaults.metrics_host,
        help="where every process serves its metrics and health (default %(default)s)",
    )
    group.add_argument(
        "--metrics-port",
        metavar="PORT",
        type=number_from(0, 65_535, whole=True),
        default=defaults.metrics_port,
        help="of the controller, whose page /targets lists all others on ports of their own (for `router` and "
        "`replica`: their own port); 0 takes any free one (default %(default)s)",
    )
    group.add_argument(
        "--log-format",
        choices=[kind.value for kind in LogFormat],
        default=defaults.log_format.value,
        help="lines for people, or a JSON object a line (default %(default)s)",
    )
    group.add_argument(
        "--log-level",
        choices=[level.value for level in LogLevel],
        default=defaults.log_level.value,
        help="the least grave lines that are written (default %(default)s)",
    )


def telemetry_of(arguments: argparse.Namespace) -> TelemetryConfig:
    """What the flags say."""
    return TelemetryConfig(
        metrics_host=arguments.metrics_host,
        metrics_port=arguments.metrics_port,
        log_format=LogFormat(arguments.log_format),
        log_level=LogLevel(arguments.log_level),
    )
