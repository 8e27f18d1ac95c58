"""Many requests on one stream of ModelStreamInfer: answered at the same time, each by itself.

The error of one is an answer like others and leaves the rest alone. A client that does not read stops its requests from
being read, and what is held for it here is bounded by the requests in flight, whose answers are made one at a time.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from shardline_cluster.errors import ShardlineError
from shardline_cluster.router.background_tasks import BackgroundTasks
from shardline_cluster.router.open_inference.answer import Answer
from shardline_cluster.router.status_details import status_message
from shardline_protos import open_inference_pb2 as pb

log = logging.getLogger(__name__)

FINAL = "triton_final_response"
MAX_IN_FLIGHT = 256  # requests of one stream; further ones are not read before one has ended
MAX_WAITING = 16  # answers that the client has not taken yet

Answers = Callable[[pb.ModelInferRequest], AsyncGenerator[Answer, None]]


class InferenceStream:
    """One client's stream."""

    def __init__(
        self, answers: Answers, on_error: Callable[[Exception], None], *, max_in_flight: int = MAX_IN_FLIGHT
    ) -> None:
        """`answers` is called for each request, and closed in any case; `on_error` is told why one ended."""
        self._answers = answers
        self._on_error = on_error
        self._room = asyncio.Semaphore(max_in_flight)
        self._in_flight: set[asyncio.Task[None]] = set()
        # None: all is answered; an error ends the stream
        self._waiting: asyncio.Queue[pb.ModelStreamInferResponse | Exception | None] = asyncio.Queue(MAX_WAITING)
        self._tasks = BackgroundTasks("an inference stream")

    async def responses(
        self, requests: AsyncIterator[pb.ModelInferRequest]
    ) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        """What the client is to read, until it sends nothing more and all is answered. Closing cancels the rest.

        Raises:
            ShardlineError: of reading the requests.
        """
        self._tasks.spawn(self._read(requests))
        try:
            while (response := await self._waiting.get()) is not None:
                if isinstance(response, Exception):
                    raise response
                yield response
        finally:
            await self._tasks.cancel_all()

    async def _read(self, requests: AsyncIterator[pb.ModelInferRequest]) -> None:
        try:
            await self._room.acquire()
            async for request in requests:
                task = self._tasks.spawn(self._answer(request))
                self._in_flight.add(task)
                task.add_done_callback(self._ended)
                await self._room.acquire()
            await asyncio.gather(*self._in_flight)
        except Exception as error:
            await self._waiting.put(error)
        else:
            await self._waiting.put(None)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._in_flight.discard(task)
        self._room.release()

    async def _answer(self, request: pb.ModelInferRequest) -> None:
        try:
            async with aclosing(self._answers(request)) as answers:
                async for answer in answers:
                    await self._waiting.put(_response(answer))
        except ShardlineError as error:
            self._on_error(error)
            await self._waiting.put(_error(request, f"{error.code}: {status_message(error)}"))
        except Exception as error:
            self._on_error(error)
            log.error("a request of an inference stream failed unexpectedly", exc_info=error)
            await self._waiting.put(_error(request, "INTERNAL: the router failed unexpectedly; its log says more"))


def _response(answer: Answer) -> pb.ModelStreamInferResponse:
    answer.response.parameters[FINAL].bool_param = answer.final
    return pb.ModelStreamInferResponse(infer_response=answer.response)


def _error(request: pb.ModelInferRequest, message: str) -> pb.ModelStreamInferResponse:
    """The id stands in the text as well: tritonclient drops everything else."""
    of_request = request.id[:64]
    response = pb.ModelInferResponse(id=request.id, model_name=request.model_name)
    response.parameters[FINAL].bool_param = True
    return pb.ModelStreamInferResponse(
        error_message=f"[request id: {of_request}] {message}" if of_request else message, infer_response=response
    )
