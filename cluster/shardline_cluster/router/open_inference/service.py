"""`inference.GRPCInferenceService`, the Open Inference Protocol version 2, over grpc.aio."""

from collections.abc import AsyncGenerator, AsyncIterator

from shardline_cluster.access.api_key import Scope
from shardline_cluster.access.caller import Caller
from shardline_cluster.router.open_inference.answer import Answer
from shardline_cluster.router.open_inference.generation import OpenInferenceGeneration
from shardline_cluster.router.open_inference.models import OpenInferenceModels
from shardline_cluster.router.open_inference.stream import InferenceStream
from shardline_cluster.router.service_shell import Context, ServiceShell
from shardline_protos import open_inference_pb2 as pb
from shardline_protos.open_inference_pb2_grpc import GRPCInferenceServiceServicer

NEEDED = Scope.GENERATE


class OpenInferenceService(GRPCInferenceServiceServicer):
    """The servicer."""

    def __init__(self, generation: OpenInferenceGeneration, models: OpenInferenceModels, shell: ServiceShell) -> None:
        self._generation = generation
        self._models = models
        self._shell = shell

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:  # noqa: N802
        """Tells that it answers."""
        return await self._shell.answer(context, NEEDED, lambda _: _live())

    async def ServerReady(  # noqa: N802
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        """Tells whether any model is ready."""
        return await self._shell.answer(context, NEEDED, lambda _: self._models.server_ready())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:  # noqa: N802
        """Tells whether a model is ready."""
        return await self._shell.answer(context, NEEDED, lambda _: self._models.model_ready(request))

    async def ServerMetadata(  # noqa: N802
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        """Tells who answers."""
        return await self._shell.answer(context, NEEDED, lambda _: self._models.server_metadata())

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """Tells a model's tensors."""
        return await self._shell.answer(context, NEEDED, lambda _: self._models.model_metadata(request))

    async def ModelConfig(  # noqa: N802
        self, request: pb.ModelConfigRequest, context: Context
    ) -> pb.ModelConfigResponse:
        """Tells how a model is called."""
        return await self._shell.answer(context, NEEDED, lambda _: self._models.model_config(request))

    async def RepositoryIndex(  # noqa: N802
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        """Tells what is deployed."""
        return await self._shell.answer(context, NEEDED, lambda _: self._models.repository_index(request))

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:  # noqa: N802
        """Answers a request."""
        return await self._shell.answer(context, NEEDED, lambda caller: self._generation.whole(request, caller))

    async def ModelStreamInfer(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> None:
        """Answers requests as they come."""

        def responses(_caller: Caller) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
            return InferenceStream(answers, self._shell.told).responses(request_iterator)

        def answers(request: pb.ModelInferRequest) -> AsyncGenerator[Answer, None]:
            return self._generation.parts(request, self._shell.caller(context, NEEDED))

        await self._shell.stream(context, NEEDED, responses)


async def _live() -> pb.ServerLiveResponse:
    return pb.ServerLiveResponse(live=True)
