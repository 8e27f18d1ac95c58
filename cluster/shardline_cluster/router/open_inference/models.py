"""What the Open Inference Protocol tells of models and server: whether they are ready, what they take and give."""

from collections.abc import Awaitable, Callable
from importlib import metadata

from shardline_cluster.errors import QueueUnavailableError, UnknownModelError
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.router.admission.field_checks import check_no_unknown_fields, invalid
from shardline_cluster.router.model_catalogue import ModelCatalogue
from shardline_cluster.router.model_directory import ModelDirectory
from shardline_cluster.router.open_inference.request import VERSION, check_version
from shardline_cluster.router.open_inference.signature import INPUTS, OUTPUTS, TensorSpec
from shardline_protos import generation_pb2 as generation
from shardline_protos import open_inference_pb2 as pb

PLATFORM = "shardline"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "parameters", "schedule_policy")
_TYPES = {"BYTES": pb.TYPE_STRING, "BOOL": pb.TYPE_BOOL, "UINT32": pb.TYPE_UINT32, "FP32": pb.TYPE_FP32}


class OpenInferenceModels:
    """Models, as deployed right now."""

    def __init__(self, catalogue: ModelCatalogue, directory: ModelDirectory) -> None:
        self._catalogue = catalogue
        self._directory = directory

    async def server_ready(self) -> pb.ServerReadyResponse:
        """Whether a replica of any model is ready. Without Redis nothing is."""
        return pb.ServerReadyResponse(ready=await self._any_ready(self._catalogue.list_models))

    async def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """Whether a replica of this model is ready; a model that is not deployed yet is not.

        Raises:
            InvalidRequestError: it has a field that is not known.
            UnknownModelError: no model has this version, and none ever will.
        """
        check_no_unknown_fields(request)
        check_version(request.name, request.version)

        async def models() -> generation.ListModelsResponse:
            return generation.ListModelsResponse(models=[await self._catalogue.model(request.name)])

        return pb.ModelReadyResponse(ready=await self._any_ready(models))

    async def server_metadata(self) -> pb.ServerMetadataResponse:
        """Who answers."""
        return pb.ServerMetadataResponse(name=PLATFORM, version=_installed_version(), extensions=EXTENSIONS)

    async def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """Tensors of a model.

        Raises:
            ShardlineError: no answer, or there is no such model.
        """
        model = self._deployment(request)
        return pb.ModelMetadataResponse(
            name=model.name,
            versions=[VERSION],
            platform=PLATFORM,
            inputs=[_metadata(spec) for spec in INPUTS],
            outputs=[_metadata(spec) for spec in OUTPUTS],
        )

    async def model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """The same, with what may be left out and how answers come.

        Raises:
            ShardlineError: no answer, or there is no such model.
        """
        model = self._deployment(request)
        config = pb.ModelConfig(
            name=model.name,
            platform=PLATFORM,
            backend=PLATFORM,
            max_batch_size=0,
            input=[_input(spec) for spec in INPUTS],
            output=[_output(spec) for spec in OUTPUTS],
            model_transaction_policy=pb.ModelTransactionPolicy(decoupled=True),
        )
        config.parameters["max_model_len"].string_value = str(model.max_model_len)
        return pb.ModelConfigResponse(config=config)

    async def repository_index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """What is deployed, in order of names.

        Raises:
            ShardlineError: no answer, or another repository was meant.
        """
        check_no_unknown_fields(request)
        if request.repository_name:
            shown = repr(request.repository_name[:80])
            raise invalid("repository_name", f"is {shown}", "leave it out: there is one repository, what is deployed")
        models = (await self._catalogue.list_models()).models
        told = [_index_entry(model) for model in models if model.ready_replicas or not request.ready]
        return pb.RepositoryIndexResponse(models=told)

    async def _any_ready(self, models: Callable[[], Awaitable[generation.ListModelsResponse]]) -> bool:
        """Asks Redis only where it is known to answer, so that nobody waits for a no."""
        if not self._directory.available:
            return False
        try:
            return any(model.ready_replicas for model in (await models()).models)
        except (UnknownModelError, QueueUnavailableError):
            return False

    def _deployment(self, request: pb.ModelMetadataRequest | pb.ModelConfigRequest) -> Deployment:
        check_no_unknown_fields(request)
        check_version(request.name, request.version)
        return self._directory.deployment(request.name)


def _metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.dims)


def _input(spec: TensorSpec) -> pb.ModelInput:
    return pb.ModelInput(name=spec.name, data_type=_TYPES[spec.datatype], dims=spec.dims, optional=spec.optional)


def _output(spec: TensorSpec) -> pb.ModelOutput:
    return pb.ModelOutput(name=spec.name, data_type=_TYPES[spec.datatype], dims=spec.dims)


def _index_entry(model: generation.Model) -> pb.RepositoryIndexResponse.ModelIndex:
    if model.ready_replicas:
        return pb.RepositoryIndexResponse.ModelIndex(name=model.name, version=VERSION, state="READY")
    reason = f"none of {model.desired_replicas} replicas is ready; requests wait in the queue"
    return pb.RepositoryIndexResponse.ModelIndex(name=model.name, version=VERSION, state="UNAVAILABLE", reason=reason)


def _installed_version() -> str:
    try:
        return metadata.version("shardline")
    except metadata.PackageNotFoundError:
        return "sources"
