"""`shardline doctor`: whether this machine could serve, and what to do where it could not."""

import argparse
import asyncio
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from shardline_cluster.cli.checks.finding import Finding, Level
from shardline_cluster.cli.checks.machine_checks import machine_findings
from shardline_cluster.cli.checks.package_checks import (
    check_launcher,
    check_packages,
    check_python,
    check_server_binary,
)
from shardline_cluster.cli.flags.number_flags import number_from
from shardline_cluster.cli.flags.redis_flags import add_redis_flags, redis_url
from shardline_cluster.queue.durability import Durability, parse_durability
from shardline_cluster.queue.lane_names import DEFAULT_PREFIX
from shardline_cluster.replica.model_location import default_cache_folder

_DESCRIPTION = """\
Looks at what `shardline serve` needs of this machine, and at a Redis server if one is given. Each line says what was
found: ✓ is well, ! works less well than it could, ✗ would not work, with what helps below it. Changes nothing. Exits
with 1 where there is a ✗.
"""
_EPILOG = """\
examples:
  shardline doctor
  shardline doctor --redis-url redis://:PASSWORD@10.0.0.5:6379/0 --online
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "doctor",
        help="check this machine, and say what to do",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add_redis_flags(parser, otherwise="none is looked at")
    parser.add_argument(
        "--redis-prefix", metavar="TEXT", default=DEFAULT_PREFIX, help="what its keys begin with (default %(default)s)"
    )
    parser.add_argument(
        "--durability",
        choices=[durability.value for durability in (Durability.NONE, Durability.RELAXED)],
        default=Durability.RELAXED.value,
        help="what that server may lose (default %(default)s)",
    )
    parser.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1", help="where a server would listen (default %(default)s)"
    )
    parser.add_argument(
        "--grpc-port",
        metavar="PORT",
        type=number_from(1, 65_535, whole=True),
        default=50051,
        help="and its port (default %(default)s)",
    )
    parser.add_argument("--online", action="store_true", help="ask the Hugging Face hub whether it answers, too")
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Checks; 1 where something would not work."""
    findings = []
    for finding in _findings(arguments, os.environ):
        findings.append(finding)
        if not arguments.json:
            print(finding.line(), flush=True)
    num_broken = sum(finding.level is Level.BROKEN for finding in findings)
    if arguments.json:
        print(json.dumps([_as_json(finding) for finding in findings], ensure_ascii=False))
    else:
        print(_verdict(num_broken))
    return 1 if num_broken else 0


def _findings(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Iterator[Finding]:
    url = redis_url(arguments, environment)
    yield check_python()
    yield from check_packages()
    yield check_launcher()
    yield check_server_binary(is_needed=not url)
    if url and importlib.util.find_spec("redis") is not None:  # its lack is told above
        from shardline_cluster.cli.checks.redis_checks import redis_findings

        durability = parse_durability(arguments.durability)
        yield from asyncio.run(redis_findings(url, prefix=arguments.redis_prefix, durability=durability))
    yield from machine_findings(
        environment,
        host=arguments.host,
        port=arguments.grpc_port,
        cache_folder=default_cache_folder(),
        online=arguments.online,
    )


def _verdict(num_broken: int) -> str:
    if not num_broken:
        return "This machine can serve: `shardline serve smollm2:135m`"
    return f"{num_broken} thing{'' if num_broken == 1 else 's'} to mend before this machine can serve"


def _as_json(finding: Finding) -> dict[str, str]:
    return {
        "check": finding.check,
        "level": finding.level.name.lower(),
        "found": finding.found,
        "remedy": finding.remedy,
    }
