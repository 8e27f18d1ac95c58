"""All that a request needs a tokenizer for, in one go: it may be slow, and runs off the event loop."""

from collections.abc import Iterable
from dataclasses import dataclass

from shardline_cluster.router.admission.prompt import prompt_ids
from shardline_protos import generation_pb2 as pb
from shardline_workers.text.bad_words import spellings
from shardline_workers.text.detokenizer import text_of
from shardline_workers.text.text_model import TextModel


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedRequest:
    """What stands in a record beside the client's own words."""

    prompt_ids: tuple[int, ...]
    echoed_text: str = ""  # of the prompt, where it is to stand before the output
    bad_words: tuple[tuple[int, ...], ...] = ()  # in every spelling


def tokenized(model: TextModel, request: pb.GenerateRequest) -> TokenizedRequest:
    """A request that `check_request` has passed.

    Raises:
        InvalidRequestError: an id is not in the vocabulary, or the chat cannot be rendered.
    """
    ids, sampling = prompt_ids(model, request), request.sampling
    return TokenizedRequest(
        prompt_ids=ids,
        echoed_text=_prompt_text(model, request, ids) if sampling.echo else "",
        bad_words=_bad_words(model, sampling.bad_words),
    )


def _bad_words(model: TextModel, words: Iterable[str]) -> tuple[tuple[int, ...], ...]:
    """Spellings with a token that the model has not cannot come anyway, and engines would refuse them."""
    return tuple(ids for ids in spellings(model.tokenizer, words) if max(ids) < model.vocab_size)


def _prompt_text(model: TextModel, request: pb.GenerateRequest, ids: tuple[int, ...]) -> str:
    """The client's text as it came; of ids and chats the text of their tokens, as the output's would be told."""
    if request.WhichOneof("prompt") == "text":
        return request.text
    sampling = request.sampling
    skips = sampling.skip_special_tokens if sampling.HasField("skip_special_tokens") else True
    return text_of(model.tokenizer, ids, skip_special=skips)
