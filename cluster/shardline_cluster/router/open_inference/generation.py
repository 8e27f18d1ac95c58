"""Requests of the Open Inference Protocol on the core that all protocols stand on. Knows no transport."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from shardline_cluster.access.caller import Caller
from shardline_cluster.errors import InvalidRequestError
from shardline_cluster.router.admission.field_checks import invalid
from shardline_cluster.router.generation import Generation
from shardline_cluster.router.model_directory import ModelDirectory
from shardline_cluster.router.open_inference.answer import Answer, answers
from shardline_cluster.router.open_inference.request import EMPTY_FINAL, TranslatedRequest, translated
from shardline_cluster.router.open_inference.signature import STREAM
from shardline_protos import open_inference_pb2 as pb
from shardline_workers.text.detokenizer import text_of


class OpenInferenceGeneration:
    """Requests with one answer, or with many."""

    def __init__(self, generation: Generation, directory: ModelDirectory) -> None:
        self._generation = generation
        self._directory = directory

    async def whole(self, request: pb.ModelInferRequest, caller: Caller) -> pb.ModelInferResponse:
        """The one answer of a request.

        Raises:
            ShardlineError: it was not accepted, asks for several answers, or did not end by itself.
        """
        asked = translated(request)
        if asked.form.streams:
            remedy = "call ModelStreamInfer, or leave it out to get the whole text"
            raise invalid(STREAM.name, "is true, but ModelInfer has one answer", remedy)
        if asked.form.empty_final:
            raise invalid(f"parameters.{EMPTY_FINAL}", "is set, but ModelInfer has one answer", "leave it out")
        async with aclosing(self._answers(asked, caller)) as told:
            async for answer in told:
                return answer.response
        raise AssertionError("a request that ends well has an answer")

    async def parts(self, request: pb.ModelInferRequest, caller: Caller) -> AsyncGenerator[Answer, None]:
        """Every answer of a request. To be closed where it is not read to the end, which cancels the request.

        Raises:
            ShardlineError: it was not accepted, or did not end by itself.
        """
        async with aclosing(self._answers(translated(request), caller)) as told:
            async for answer in told:
                yield answer

    async def _answers(self, asked: TranslatedRequest, caller: Caller) -> AsyncGenerator[Answer, None]:
        events = self._generation.generate(asked.generate, caller)
        try:
            async with aclosing(answers(events, asked.form, self._token_text(asked.generate.model))) as told:
                async for answer in told:
                    yield answer
        except InvalidRequestError as error:
            raise asked.in_clients_words(error) from error

    def _token_text(self, model: str) -> Callable[[int], str]:
        """How the model's tokens read; it is asked only when there are some."""

        def token_text(token_id: int) -> str:
            tokenizer = self._directory.find(model).lane.text.tokenizer
            return text_of(tokenizer, (token_id,), skip_special=False)

        return token_text
