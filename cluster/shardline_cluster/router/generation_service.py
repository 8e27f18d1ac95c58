"""`shardline.v1.Generation` over grpc.aio: a thin shell that turns ShardlineErrors into statuses."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio

from shardline_cluster.errors import ShardlineError
from shardline_cluster.router.admission import DEFAULT_TENANT
from shardline_cluster.router.generation import Caller, Generation
from shardline_cluster.router.model_catalogue import ModelCatalogue
from shardline_cluster.router.status_details import status_message, status_metadata
from shardline_protos import generation_pb2 as pb
from shardline_protos.generation_pb2_grpc import GenerationServicer

log = logging.getLogger(__name__)

R = TypeVar("R")
Context = grpc.aio.ServicerContext[Any, Any]


class GenerationService(GenerationServicer):
    """The servicer."""

    def __init__(self, generation: Generation, catalogue: ModelCatalogue) -> None:
        self._generation = generation
        self._catalogue = catalogue

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> None:  # noqa: N802
        """Accepts a request and streams it."""
        await _stream(self._generation.generate(request, _caller(context)), context)

    async def Resume(self, request: pb.ResumeRequest, context: Context) -> None:  # noqa: N802
        """Streams the rest of a request."""
        await _stream(self._generation.resume(request, _caller(context)), context)

    async def Cancel(self, request: pb.CancelRequest, context: Context) -> pb.CancelResponse:  # noqa: N802
        """Ends a request."""
        return await _answer(lambda: self._generation.cancel(request, _caller(context)), context)

    async def GetRequest(self, request: pb.GetRequestRequest, context: Context) -> pb.RequestStatus:  # noqa: N802
        """Tells how a request stands."""
        return await _answer(lambda: self._generation.get_request(request, _caller(context)), context)

    async def Forget(self, request: pb.ForgetRequest, context: Context) -> pb.ForgetResponse:  # noqa: N802
        """Deletes an ended request."""
        return await _answer(lambda: self._generation.forget(request, _caller(context)), context)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802
        """Tells what is deployed."""
        return await _answer(self._catalogue.list_models, context)

    async def Tokenize(self, request: pb.TokenizeRequest, context: Context) -> pb.TokenizeResponse:  # noqa: N802
        """Text to tokens."""
        return await _answer(lambda: self._catalogue.tokenize(request), context)

    async def Detokenize(self, request: pb.DetokenizeRequest, context: Context) -> pb.DetokenizeResponse:  # noqa: N802
        """Tokens to text."""
        return await _answer(lambda: self._catalogue.detokenize(request), context)


def _caller(context: Context) -> Caller:
    return Caller(DEFAULT_TENANT, context.time_remaining())


async def _stream(events: AsyncGenerator[pb.GenerateEvent, None], context: Context) -> None:
    """Writes as fast as the client reads: the next event is asked for when the last one is on its way."""
    try:
        async with aclosing(events) as open_events:
            async for event in open_events:
                await context.write(event)
    except ShardlineError as error:
        await _abort(context, error)
    except Exception as error:
        if not context.done():  # else the client was gone while an event was written
            await _abort_unexpected(context, error)


async def _answer(work: Callable[[], Awaitable[R]], context: Context) -> R:
    try:
        return await work()
    except ShardlineError as error:
        await _abort(context, error)
    except Exception as error:
        await _abort_unexpected(context, error)


async def _abort(context: Context, error: ShardlineError) -> NoReturn:
    code, message = grpc.StatusCode[error.code], status_message(error)
    await context.abort(code, message, status_metadata(error, code=code.value[0], message=message))
    raise AssertionError("abort does not return")


async def _abort_unexpected(context: Context, error: Exception) -> NoReturn:
    log.error("a call failed unexpectedly", exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "the router failed unexpectedly; its log says more")
    raise AssertionError("abort does not return")
