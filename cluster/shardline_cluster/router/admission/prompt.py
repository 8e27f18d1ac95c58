"""A prompt, whichever of its three kinds, to token ids. May be slow on long prompts: runs off the event loop."""

from collections.abc import Mapping

from shardline_cluster.errors import InvalidRequestError
from shardline_cluster.router.admission.field_checks import check_token_ids
from shardline_protos import generation_pb2 as pb
from shardline_workers.text.chat_template import ChatTemplateError
from shardline_workers.text.detokenizer import text_of
from shardline_workers.text.text_model import TextModel

MAX_CHARACTERS_A_TOKEN = 128  # of the longest ones in vocabularies: runs of spaces


def prompt_ids(model: TextModel, request: pb.GenerateRequest) -> tuple[int, ...]:
    """The prompt of a request that `check_request` has passed.

    Raises:
        InvalidRequestError: an id is not in the vocabulary, the model has no weights for one, or the chat cannot be
            rendered.
    """
    kind = request.WhichOneof("prompt")
    if kind == "token_ids":
        check_token_ids("token_ids.ids", request.token_ids.ids, model.vocab_size)
        return tuple(request.token_ids.ids)
    is_chat = kind == "chat"
    ids = chat_ids(model, request.chat) if is_chat else text_ids(model, request.text, add_special_tokens=True)
    _check_embedded(model, ids)
    return ids


def text_ids(model: TextModel, text: str, *, add_special_tokens: bool) -> tuple[int, ...]:
    """Plain text; the model's BOS before it, once, where it wants one.

    Raises:
        InvalidRequestError: it is so long that it cannot fit. Tokenizers take seconds for a megabyte.
    """
    most = MAX_CHARACTERS_A_TOKEN * model.max_model_len
    if len(text) > most:
        raise InvalidRequestError(
            f"prompt has {len(text)} characters, but the model's context of {model.max_model_len} tokens holds "
            f"{most} at the very most: shorten it",
            field="prompt",
        )
    return tuple(model.tokenizer.encode(text, add_special_tokens=add_special_tokens))


def chat_ids(model: TextModel, chat: pb.Chat) -> tuple[int, ...]:
    """A conversation in the form that the model was trained on. Its template writes BOS itself where it wants one.

    Raises:
        InvalidRequestError: the model has no chat template, or its template refuses these messages.
    """
    if model.chat_template is None:
        raise InvalidRequestError(
            f"chat is set, but the model {model.name} has no chat template: it is a base model, which goes on with a "
            "text and was taught no turns. Send `text` (shardline generate), or serve it with --chat-template",
            field="chat",
        )
    messages = [_message(message) for message in chat.messages]
    opens = chat.add_generation_prompt if chat.HasField("add_generation_prompt") else True
    try:
        rendered = model.chat_template.render(messages, add_generation_prompt=opens)
    except ChatTemplateError as error:
        raise InvalidRequestError(
            f"chat cannot be rendered by the chat template of {model.name}: {error}. Change the messages, or serve the "
            "model with another --chat-template",
            field="chat",
        ) from error
    return text_ids(model, rendered, add_special_tokens=False)


def _check_embedded(model: TextModel, ids: tuple[int, ...]) -> None:
    """Some models have tokens of images or tools in their tokenizer, and no row for them in their embedding."""
    highest = max(ids, default=0)
    if highest >= model.vocab_size:
        text = text_of(model.tokenizer, [highest], skip_special=False)[:80]
        raise InvalidRequestError(
            f"prompt has the token {highest} ({text!r}), but the weights of {model.name} know ids below "
            f"{model.vocab_size} only: leave its text out",
            field="prompt",
        )


def _message(message: pb.ChatMessage) -> Mapping[str, str]:
    fields = {"role": message.role, "content": message.content}
    return fields | {"name": message.name} if message.name else fields
