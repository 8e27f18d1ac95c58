"""`shardline deploy MODEL`: another model, or other settings or weights of one, on a cluster that runs."""

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from shardline_cluster.cli.admin_calls import AdminCalls, admin_calls
from shardline_cluster.cli.flags.engine_flags import add_engine_flags, engine_options
from shardline_cluster.cli.flags.number_flags import number_from
from shardline_cluster.cli.router_address import add_router_flags
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import MOST_REPLICAS
from shardline_cluster.fleet.engine_bounds import SIMULATED
from shardline_cluster.fleet.fleet_report import DeploymentReport, PlaceReport
from shardline_cluster.fleet.replica_state import ReplicaState
from shardline_cluster.router.admin.deployment_messages import options_message
from shardline_cluster.serve.fleet_watch import changes, hopeless, is_up
from shardline_protos import admin_pb2 as pb

POLL_S = 0.3
SILENCE_S = 5.0  # a controller looks twice a second

_DESCRIPTION = """\
Deploys a model on a cluster that runs, beside those that it serves, and waits until a replica is ready. Under a name
that is deployed already it changes that deployment: requests that were accepted for other weights are still answered
by those. Ctrl-C ends the waiting, not the deployment.
"""
_EPILOG = """\
examples:
  shardline deploy gemma3:270m
  shardline deploy ./my-model.gguf --as mine --replicas 2 --max-model-len 4096
  shardline generate --model mine "Once upon a time"
  shardline undeploy mine
"""


class CannotBeServedError(ConfigurationError):
    """A deployment was made, but none of its replicas comes up."""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "deploy",
        help="serve another model, or change one",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument(
        "model",
        nargs="?",
        default="",
        metavar="MODEL",
        help="as `serve` takes it; a path is one on the machine of the routers and replicas; may be left out with "
        "--engine simulated",
    )
    parser.add_argument(
        "--as",
        dest="deployed_as",
        metavar="NAME",
        default="",
        help="what clients put into `model`; by default MODEL's short name",
    )
    parser.add_argument(
        "--replicas",
        metavar="N",
        type=number_from(0, MOST_REPLICAS, whole=True),
        help="copies of the model (default: as many as it has, 1 for a new one)",
    )
    parser.add_argument("--no-wait", action="store_true", help="do not wait until a replica is ready")
    parser.add_argument("--json", action="store_true", help="print the deployment as one JSON object at the end")
    add_engine_flags(parser)
    add_router_flags(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Deploys, and waits.

    Raises:
        ShardlineError: no router answers, or it refuses.
        CannotBeServedError: no replica comes up.
    """
    request = _request(arguments)
    with admin_calls(arguments) as calls:
        deployed = _deploy(calls, request)
        if deployed.replicas and not arguments.no_wait:
            _wait_until_up(calls, deployed)
    if arguments.json:
        print(json.dumps(MessageToDict(deployed, preserving_proto_field_name=True)))
    return 0


def tell(line: str) -> None:
    """A line for people."""
    print(line, file=sys.stderr, flush=True)


def _request(arguments: argparse.Namespace) -> pb.ApplyDeploymentRequest:
    return pb.ApplyDeploymentRequest(
        name=arguments.deployed_as,
        model=_from_anywhere(arguments.model),
        replicas=arguments.replicas,
        options=options_message(engine_options(arguments)),
    )


def _from_anywhere(model: str) -> str:
    """A path as routers understand it, which work in another folder."""
    if ":" in model or model in ("", SIMULATED):
        return model
    return str(Path(model).expanduser().absolute())


def _deploy(calls: AdminCalls, request: pb.ApplyDeploymentRequest) -> pb.Deployment:
    deployed = pb.Deployment()
    for event in calls.stream("ApplyDeployment", request):
        if event.HasField("deployment"):
            deployed = event.deployment
        else:
            tell(event.progress)
    tell(f"deployed {deployed.name} in the cluster {deployed.cluster}; replicas wanted: {deployed.replicas}")
    return deployed


def _wait_until_up(calls: AdminCalls, deployed: pb.Deployment) -> None:
    seen: DeploymentReport | None = None
    quiet_until = time.monotonic() + SILENCE_S
    while True:
        replicas = calls.call("ListReplicas", pb.ListReplicasRequest(deployment=deployed.name)).replicas
        report = _report(deployed, replicas)
        for line in changes(seen, report):
            tell(line)
        if is_up(report):
            tell(f'ready: shardline generate --model {deployed.name} "Once upon a time"')
            return
        if reason := hopeless(report):
            raise CannotBeServedError(
                f"{deployed.name} is deployed, but does not come up: {reason}; deploy it again with other flags, or "
                f"take it away (shardline undeploy {deployed.name})"
            )
        if not replicas and time.monotonic() > quiet_until:
            tell(
                f"waiting: no controller of the cluster {deployed.cluster!r} has looked at it yet; is "
                "`shardline serve` or `shardline controller` running there?"
            )
            quiet_until = float("inf")
        seen = report
        time.sleep(POLL_S)


def _report(deployed: pb.Deployment, replicas: Iterable[pb.Replica]) -> DeploymentReport:
    """What is told of a deployment's own lane. Before its controller has looked, every place is still empty; so is one
    whose replica is of the settings before."""
    told = {replica.place: _place(replica) for replica in replicas if not replica.outdated}
    names = [f"{deployed.lane}-{index}" for index in range(deployed.replicas)]
    places = tuple(told.get(name, PlaceReport(place=name)) for name in names)
    return DeploymentReport(name=deployed.name, lane=deployed.lane, places=places)


def _place(replica: pb.Replica) -> PlaceReport:
    known = replica.state in ReplicaState.__members__
    return PlaceReport(
        place=replica.place,
        incarnation=replica.incarnation,
        state=ReplicaState[replica.state] if known else ReplicaState.PENDING,
        failures=replica.failures,
        reason=replica.reason,
        next_start_s=replica.next_start.ToTimedelta().total_seconds() if replica.HasField("next_start") else None,
        shape=replica.shape,
    )
