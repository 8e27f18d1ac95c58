"""`shardline.v1.Generation` over grpc.aio."""

from shardline_cluster.access.api_key import Scope
from shardline_cluster.router.generation import Generation
from shardline_cluster.router.model_catalogue import ModelCatalogue
from shardline_cluster.router.service_shell import Context, ServiceShell
from shardline_protos import generation_pb2 as pb
from shardline_protos.generation_pb2_grpc import GenerationServicer

NEEDED = Scope.GENERATE


class GenerationService(GenerationServicer):
    """The servicer."""

    def __init__(self, generation: Generation, catalogue: ModelCatalogue, shell: ServiceShell) -> None:
        self._generation = generation
        self._catalogue = catalogue
        self._shell = shell

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> None:  # noqa: N802
        """Accepts a request and streams it."""
        await self._shell.stream(context, NEEDED, lambda caller: self._generation.generate(request, caller))

    async def Resume(self, request: pb.ResumeRequest, context: Context) -> None:  # noqa: N802
        """Streams the rest of a request."""
        await self._shell.stream(context, NEEDED, lambda caller: self._generation.resume(request, caller))

    async def Cancel(self, request: pb.CancelRequest, context: Context) -> pb.CancelResponse:  # noqa: N802
        """Ends a request."""
        return await self._shell.answer(context, NEEDED, lambda caller: self._generation.cancel(request, caller))

    async def GetRequest(self, request: pb.GetRequestRequest, context: Context) -> pb.RequestStatus:  # noqa: N802
        """Tells how a request stands."""
        return await self._shell.answer(context, NEEDED, lambda caller: self._generation.get_request(request, caller))

    async def Forget(self, request: pb.ForgetRequest, context: Context) -> pb.ForgetResponse:  # noqa: N802
        """Deletes an ended request."""
        return await self._shell.answer(context, NEEDED, lambda caller: self._generation.forget(request, caller))

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802
        """Tells what is deployed."""
        return await self._shell.answer(context, NEEDED, lambda _: self._catalogue.list_models())

    async def Tokenize(self, request: pb.TokenizeRequest, context: Context) -> pb.TokenizeResponse:  # noqa: N802
        """Text to tokens."""
        return await self._shell.answer(context, NEEDED, lambda _: self._catalogue.tokenize(request))

    async def Detokenize(self, request: pb.DetokenizeRequest, context: Context) -> pb.DetokenizeResponse:  # noqa: N802
        """Tokens to text."""
        return await self._shell.answer(context, NEEDED, lambda _: self._catalogue.detokenize(request))
