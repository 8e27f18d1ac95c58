"""What clients may ask about models: which there are, and how they cut text into tokens. Knows no transport."""

import asyncio

from shardline_cluster.errors import InvalidRequestError
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.ready_leaders import ready_leaders
from shardline_cluster.router.admission.field_checks import (
    check_count,
    check_no_unknown_fields,
    check_token_ids,
    invalid,
)
from shardline_cluster.router.admission.prompt import chat_ids, text_ids
from shardline_cluster.router.admission.validation import check_messages
from shardline_cluster.router.model_directory import ModelDirectory
from shardline_cluster.router.text_threads import TextThreads
from shardline_protos import generation_pb2 as pb
from shardline_workers.text.detokenizer import text_of
from shardline_workers.text.generation_config import told_defaults
from shardline_workers.text.text_model import TextModel

MAX_DETOKENIZED_IDS = 1_000_000
MAX_DETOKENIZED_CHARACTERS = 4_000_000  # of up to four bytes: the answer stays within what a message may hold


class ModelCatalogue:
    """Models: listed, and their tokenizers."""

    def __init__(self, directory: ModelDirectory, threads: TextThreads) -> None:
        self._directory = directory
        self._threads = threads

    async def list_models(self) -> pb.ListModelsResponse:
        """What is deployed, in order of names.

        Raises:
            ShardlineError: no answer.
        """
        deployments = self._directory.deployments()
        models = await asyncio.gather(*(self._model(deployments[name]) for name in sorted(deployments)))
        return pb.ListModelsResponse(models=models)

    async def model(self, name: str) -> pb.Model:
        """One deployed model; no name at all means the only one.

        Raises:
            ShardlineError: there is no such model, or no answer.
        """
        return await self._model(self._directory.deployment(name))

    async def tokenize(self, request: pb.TokenizeRequest) -> pb.TokenizeResponse:
        """A prompt's tokens.

        Raises:
            ShardlineError: a field is wrong, or there is no such model.
        """
        check_no_unknown_fields(request)
        served = self._directory.find(request.model)
        run = self._threads.run_chat if request.WhichOneof("prompt") == "chat" else self._threads.run
        ids = await run(_tokenized, served.text, request)
        return pb.TokenizeResponse(token_ids=ids, max_model_len=served.max_model_len)

    async def detokenize(self, request: pb.DetokenizeRequest) -> pb.DetokenizeResponse:
        """The text of tokens; bytes that are no character become U+FFFD.

        Raises:
            ShardlineError: a field is wrong, or there is no such model.
        """
        check_no_unknown_fields(request)
        check_count("token_ids", len(request.token_ids), MAX_DETOKENIZED_IDS)
        text = self._directory.find(request.model).text
        return pb.DetokenizeResponse(text=await self._threads.run(_detokenized, text, request))

    async def _model(self, deployment: Deployment) -> pb.Model:
        model = pb.Model(
            name=deployment.name, max_model_len=deployment.max_model_len, desired_replicas=deployment.num_replicas
        )
        served = self._directory.served(deployment)
        if served is None:
            return model
        view = await served.lane.streams.view()
        for name, value in told_defaults(served.lane.text.defaults).items():
            setattr(model.default_sampling, name, value)
        model.has_chat_template = served.lane.text.chat_template is not None
        model.ready_replicas = sum(1 for _ in ready_leaders(view, deployment.name))
        model.waiting_requests = view.waiting_requests + view.handed_back_requests
        model.running_requests = view.running_requests
        return model


def _tokenized(model: TextModel, request: pb.TokenizeRequest) -> tuple[int, ...]:
    kind = request.WhichOneof("prompt")
    if kind is None:
        raise InvalidRequestError("prompt is missing: set one of text and chat", field="prompt")
    if kind == "chat":
        if request.HasField("add_special_tokens"):
            raise InvalidRequestError(
                "add_special_tokens is set, but the chat template alone says which special tokens a chat has: leave "
                "it out, or send text",
                field="add_special_tokens",
            )
        check_messages("chat", request.chat)
        return chat_ids(model, request.chat)
    special = request.add_special_tokens if request.HasField("add_special_tokens") else True
    return text_ids(model, request.text, add_special_tokens=special)


def _detokenized(model: TextModel, request: pb.DetokenizeRequest) -> str:
    check_token_ids("token_ids", request.token_ids, model.vocab_size)
    text = text_of(model.tokenizer, tuple(request.token_ids), skip_special=request.skip_special_tokens)
    if len(text) > MAX_DETOKENIZED_CHARACTERS:
        raise invalid(
            "token_ids",
            f"makes a text of {len(text)} characters",
            f"at most {MAX_DETOKENIZED_CHARACTERS} are told, send it in parts",
        )
    return text
