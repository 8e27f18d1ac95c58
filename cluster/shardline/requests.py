"""From keyword arguments to protobuf requests: the one place where the client's words become the wire's.

Field names are those of `SamplingParams`. Ranges are the router's to check; what protobuf cannot even express is
refused here, by name.
"""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from google.protobuf.duration_pb2 import Duration

from shardline.errors import InvalidArgumentError
from shardline_protos import generation_pb2 as pb


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation; `role` is whatever the model's template knows."""

    role: str
    content: str
    name: str = ""


Prompt = str | Sequence[int]  # text, or token ids as they are
Messages = str | Sequence[ChatMessage | Mapping[str, str]]  # a string is a single message of the user


class RequestOptions(TypedDict, total=False):
    """Keyword arguments of generate, chat and their kin. What is absent or None takes the model's default."""

    # Sampling.
    temperature: float | None  # 0 … 10; 0 is greedy
    top_k: int | None  # 0 = off
    top_p: float | None  # 0 < p ≤ 1
    min_p: float | None  # 0 … 1
    seed: int | None
    n: int | None  # number of sequences
    max_tokens: int | None  # of each sequence; absent: the rest of the context
    min_tokens: int | None  # nothing ends a sequence before but max_tokens
    stop: str | Sequence[str] | None  # the text ends before the first of these
    stop_token_ids: Sequence[int] | None
    ignore_eos: bool | None
    include_stop_in_output: bool | None
    logprobs: int | None  # the chosen token and the k likeliest, 0 … 20
    prompt_logprobs: int | None
    echo: bool | None  # the prompt's text stands before each output's
    presence_penalty: float | None  # -2 … 2
    frequency_penalty: float | None  # -2 … 2
    repetition_penalty: float | None  # 0.01 … 100, 1 is off
    logit_bias: Mapping[int, float] | None  # token id to addend, -100 … 100
    bad_words: str | Sequence[str] | None  # never in the output, with a space before or without
    skip_special_tokens: bool | None
    # What the output must look like: at most one of these.
    json_schema: str | Mapping[str, Any] | None
    regex: str | None
    grammar: str | None
    choices: Sequence[str] | None
    json_object: bool | None
    # The request itself.
    priority: int | None  # -100 … 100, lower goes first
    idempotency_key: str | None  # absent: drawn for each call
    timeout_s: float | None  # from acceptance to the end
    max_queue_time_s: float | None
    on_disconnect: Literal["cancel", "continue"] | float | None  # or a grace in seconds
    store: bool | None
    metadata: Mapping[str, str] | None
    traceparent: str | None  # of the trace that it belongs to; absent: the application's present OpenTelemetry span


_SCALARS = frozenset(
    {
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "seed",
        "n",
        "max_tokens",
        "min_tokens",
        "ignore_eos",
        "include_stop_in_output",
        "logprobs",
        "prompt_logprobs",
        "echo",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "skip_special_tokens",
    }
)
_LISTS = frozenset({"stop", "stop_token_ids", "bad_words"})
MAX_SHOWN = 200  # characters of a wrong value that an error repeats
_CONSTRAINTS = frozenset({"json_schema", "regex", "grammar", "choices", "json_object"})


def text_request(
    prompt: Prompt, model: str, options: RequestOptions, *, background: bool = False
) -> pb.GenerateRequest:
    """A request that continues a text or token ids.

    Raises:
        InvalidArgumentError: an option cannot be expressed.
        TypeError: there is no such option.
    """
    request = _request(model, options, background=background)
    if isinstance(prompt, str):
        _setting("prompt", prompt, lambda: setattr(request, "text", prompt))
    else:
        # An empty list must still say that token ids were meant.
        request.token_ids.SetInParent()
        _setting("prompt", prompt, lambda: request.token_ids.ids.extend(prompt))
    return request


def chat_request(
    messages: Messages, model: str, options: RequestOptions, *, background: bool = False
) -> pb.GenerateRequest:
    """A request for the assistant's next turn. Raises as `text_request`."""
    request = _request(model, options, background=background)
    request.chat.CopyFrom(chat_of(messages))
    return request


def tokenize_request(text: str, model: str, *, add_special_tokens: bool | None) -> pb.TokenizeRequest:
    """A request for a text's tokens. Raises as `text_request`."""
    request = pb.TokenizeRequest(model=model, add_special_tokens=add_special_tokens)
    _setting("text", text, lambda: setattr(request, "text", text))
    return request


def detokenize_request(
    token_ids: Sequence[int], model: str, *, skip_special_tokens: bool | None
) -> pb.DetokenizeRequest:
    """A request for the text of token ids. Raises as `text_request`."""
    request = pb.DetokenizeRequest(model=model, skip_special_tokens=skip_special_tokens)
    _setting("token_ids", token_ids, lambda: request.token_ids.extend(token_ids))
    return request


def chat_of(messages: Messages) -> pb.Chat:
    """A conversation as it travels.

    Raises:
        InvalidArgumentError: a message lacks its role or content, or says something else.
    """
    listed = [ChatMessage("user", messages)] if isinstance(messages, str) else messages
    return pb.Chat(messages=[_message(index, message) for index, message in enumerate(listed)])


def _message(index: int, message: ChatMessage | Mapping[str, str]) -> pb.ChatMessage:
    try:
        if isinstance(message, ChatMessage):
            return pb.ChatMessage(role=message.role, content=message.content, name=message.name)
        return pb.ChatMessage(role=message["role"], content=message["content"], **_extras(message))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidArgumentError(
            f"messages[{index}] is {_shown(message)}, but must have the texts 'role' and 'content', and perhaps "
            f"'name' ({error})"
        ) from None


def _extras(message: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in message.items() if key not in ("role", "content")}


def _request(model: str, options: RequestOptions, *, background: bool) -> pb.GenerateRequest:
    given = {name: value for name, value in options.items() if value is not None}
    request = pb.GenerateRequest(background=background)
    _setting("model", model, lambda: setattr(request, "model", model))
    constraints = sorted(_CONSTRAINTS & set(given))
    if len(constraints) > 1:
        raise InvalidArgumentError(
            f"{' and '.join(constraints)} are given, but an output can be held to one of them only"
        )
    given.pop("traceparent", None)  # goes with the call
    for name, value in given.items():
        _set_option(request, name, value)
    if not request.idempotency_key:
        request.idempotency_key = secrets.token_hex(16)
    return request


def _set_option(request: pb.GenerateRequest, name: str, value: Any) -> None:
    sampling = request.sampling
    if name in _SCALARS:
        _setting(name, value, lambda: setattr(sampling, name, value))
    elif name in _LISTS:
        values = [value] if isinstance(value, str) else value
        _setting(name, value, lambda: getattr(sampling, name).extend(values))
    elif name == "logit_bias":
        _setting(name, value, lambda: sampling.logit_bias.update(value))
    elif name in _CONSTRAINTS:
        _setting(name, value, lambda: _set_constraint(sampling.constraint, name, value))
    else:
        _set_request_option(request, name, value)


def _set_constraint(constraint: pb.Constraint, name: str, value: Any) -> None:
    if name == "choices":
        constraint.choices.choices.extend(value)
    elif name == "json_schema" and not isinstance(value, str):
        constraint.json_schema = json.dumps(value)
    else:
        setattr(constraint, name, value)


def _set_request_option(request: pb.GenerateRequest, name: str, value: Any) -> None:
    if name in ("priority", "idempotency_key", "store"):
        _setting(name, value, lambda: setattr(request, name, value))
    elif name == "timeout_s":
        request.timeout.CopyFrom(_duration(name, value))
    elif name == "max_queue_time_s":
        request.max_queue_time.CopyFrom(_duration(name, value))
    elif name == "on_disconnect":
        request.on_disconnect.CopyFrom(_on_disconnect(value))
    elif name == "metadata":
        _setting(name, value, lambda: request.metadata.update(value))
    else:
        raise TypeError(f"there is no option {name!r}")


def _on_disconnect(value: str | float) -> pb.OnDisconnect:
    if value == "cancel":
        return pb.OnDisconnect(cancel=True)
    if value == "continue":
        return pb.OnDisconnect(keep_going=True)
    if isinstance(value, str):
        raise InvalidArgumentError(
            f"on_disconnect is {value!r}, but must be 'cancel', 'continue' or a grace in seconds"
        )
    return pb.OnDisconnect(grace=_duration("on_disconnect", value, least_s=0.0))


def _duration(name: str, seconds: float, *, least_s: float = 0.001) -> Duration:
    if not isinstance(seconds, int | float) or not least_s <= seconds <= 1e9:
        raise InvalidArgumentError(f"{name} is {seconds!r}, but must be a number of seconds from {least_s:g} to 1e9")
    duration = Duration()
    duration.FromMilliseconds(round(seconds * 1000))
    return duration


def _setting(name: str, value: Any, assign: Callable[[], object]) -> None:
    try:
        assign()
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidArgumentError(f"{name} is {_shown(value)}, which cannot be sent: {error}") from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
