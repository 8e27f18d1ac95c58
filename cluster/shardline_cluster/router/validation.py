"""What a router lets in: every field of a request is checked, and what is wrong is told by field, value, bound, remedy.

Nothing is silently dropped: a field that is set and not supported yet is refused by name, also one that only a newer
client knows. Two steps: what can be said without a model, and what needs one.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from shardline_cluster.errors import InvalidRequestError
from shardline_protos import generation_pb2 as pb

MAX_SEQUENCES = 64
MAX_STOPS = 64
MAX_STOP_CHARACTERS = 1024
MAX_STOP_TOKEN_IDS = 64
MAX_LOGPROBS = 20
MAX_TEMPERATURE = 10.0
MAX_PRIORITY = 100
MAX_KEY_BYTES = 256
MAX_METADATA_ENTRIES = 16
MAX_METADATA_KEY_BYTES = 64
MAX_METADATA_VALUE_BYTES = 512
MAX_DURATION_S = 30 * 24 * 3600
MAX_MODEL_NAME = 256
MAX_MESSAGES = 4096  # templates walk over them, some more than once for each
_SHOWN = 80  # characters of a wrong value that a message shows

# Fields that the protocol has and the engine has not yet, with the value that asks for nothing.
_UNSUPPORTED_SCALARS: dict[str, object] = {
    "min_tokens": 0,
    "prompt_logprobs": None,
    "echo": False,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
}
_UNSUPPORTED_COLLECTIONS = ("logit_bias", "bad_words")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits:
    """What a model allows."""

    vocab_size: int
    max_model_len: int  # prompt and output together
    max_num_seqs: int  # that one replica runs at once


def check_request(request: pb.GenerateRequest) -> None:
    """Everything that can be said without a model.

    Raises:
        InvalidRequestError: the first thing that is wrong.
    """
    _check_count("chat.messages", len(request.chat.messages), MAX_MESSAGES)
    _check_unknown(request, "")
    _check_model_name(request.model)
    _check_prompt(request)
    _check_sampling(request.sampling)
    _check_between("priority", request.priority, -MAX_PRIORITY, MAX_PRIORITY, "lower goes first")
    _check_key(request.idempotency_key)
    _check_on_disconnect(request.on_disconnect)
    for field in ("timeout", "max_queue_time"):
        if request.HasField(field):
            check_duration(field, getattr(request, field))
    _check_metadata(request)


def check_against_model(request: pb.GenerateRequest, num_prompt_tokens: int, limits: ModelLimits) -> None:
    """What needs a model and the tokenised prompt.

    Raises:
        InvalidRequestError: the first thing that is wrong.
    """
    sampling = request.sampling
    check_token_ids("sampling.stop_token_ids", sampling.stop_token_ids, limits.vocab_size)
    if sampling.n > limits.max_num_seqs:
        raise _invalid(
            "sampling.n",
            f"is {sampling.n}, but the replicas of this model run {limits.max_num_seqs} sequences at once",
            "send several requests, or serve the model with a higher --max-num-seqs",
        )
    if num_prompt_tokens == 0:
        raise _invalid("prompt", "has no tokens", "at least one is needed: send some text")
    room = limits.max_model_len - num_prompt_tokens
    if room < 1:
        raise _invalid(
            "prompt",
            f"has {num_prompt_tokens} tokens, but the context holds {limits.max_model_len} with at least one of output",
            f"shorten the prompt by {1 - room} tokens",
        )
    if sampling.HasField("max_tokens") and sampling.max_tokens > room:
        raise _invalid(
            "sampling.max_tokens",
            f"is {sampling.max_tokens}, but a prompt of {num_prompt_tokens} tokens leaves {room} of the context of "
            f"{limits.max_model_len}",
            f"ask for at most {room}, or leave it out to get the rest of the context",
        )


def check_token_ids(field: str, ids: Iterable[int], vocab_size: int) -> None:
    """Ids that the model has.

    Raises:
        InvalidRequestError: one is not in the vocabulary.
    """
    for index, token_id in enumerate(ids):
        if token_id >= vocab_size:
            raise _invalid(f"{field}[{index}]", f"is {token_id}", f"must be below the vocabulary's {vocab_size}")


def check_duration(field: str, value: Duration, *, zero: bool = False) -> None:
    """A period that makes sense.

    Raises:
        InvalidRequestError: it is negative, zero (unless that is allowed), or longer than 30 days.
    """
    seconds = value.seconds + value.nanos / 1e9
    if not (0 <= seconds <= MAX_DURATION_S) or (seconds == 0 and not zero):
        least = "at least 0 s" if zero else "more than 0 s"
        raise _invalid(field, f"is {seconds:g} s", f"must be {least} and at most {MAX_DURATION_S} s (30 days)")


def check_messages(field: str, chat: pb.Chat) -> None:
    """A conversation.

    Raises:
        InvalidRequestError: there is no message, there are too many, or one has no role.
    """
    if not chat.messages:
        raise _invalid(f"{field}.messages", "is empty", "send at least one message")
    _check_count(f"{field}.messages", len(chat.messages), MAX_MESSAGES)
    for index, message in enumerate(chat.messages):
        if not message.role:
            raise _invalid(f"{field}.messages[{index}].role", "is empty", "set it, to `user` for instance")


# --- pieces ----------------------------------------------------------------------------------------------------------


def _check_unknown(message: Message, path: str) -> None:
    unknown = UnknownFieldSet(message)
    if len(unknown):
        number = unknown[0].field_number
        raise _invalid(
            f"{path}{number}",
            f"is field number {number} of {path.rstrip('.') or 'the request'}, which this router does not know",
            "leave it out, or ask a newer router",
        )
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None or descriptor.message_type.GetOptions().map_entry:
            continue
        for inner in [value] if isinstance(value, Message) else value:
            _check_unknown(inner, f"{path}{descriptor.name}.")


def _check_model_name(model: str) -> None:
    if len(model) > MAX_MODEL_NAME:
        raise _invalid("model", f"has {len(model)} characters", f"at most {MAX_MODEL_NAME} are allowed")


def _check_prompt(request: pb.GenerateRequest) -> None:
    kind = request.WhichOneof("prompt")
    if kind is None:
        raise _invalid("prompt", "is missing", "set one of text, token_ids and chat")
    if kind == "text" and not request.text:
        raise _invalid("text", "is empty", "send at least one character")
    if kind == "token_ids" and not request.token_ids.ids:
        raise _invalid("token_ids.ids", "is empty", "send at least one id")
    if kind == "chat":
        check_messages("chat", request.chat)


def _check_sampling(sampling: pb.SamplingParams) -> None:
    _check_unsupported(sampling)
    _check_number(sampling, "temperature", lambda v: 0 <= v <= MAX_TEMPERATURE, f"0 … {MAX_TEMPERATURE:g}, 0 is greedy")
    _check_number(sampling, "top_p", lambda v: 0 < v <= 1, "more than 0 and at most 1, which is off")
    _check_number(sampling, "min_p", lambda v: 0 <= v <= 1, "0 … 1, 0 is off")
    _check_number(sampling, "n", lambda v: 1 <= v <= MAX_SEQUENCES, f"1 … {MAX_SEQUENCES}: send several requests")
    _check_number(sampling, "max_tokens", lambda v: v >= 1, "at least 1, or absent for the rest of the context")
    _check_number(sampling, "logprobs", lambda v: v <= MAX_LOGPROBS, f"0 … {MAX_LOGPROBS}, or absent for none")
    _check_count("sampling.stop", len(sampling.stop), MAX_STOPS)
    for index, stop in enumerate(sampling.stop):
        if not 1 <= len(stop) <= MAX_STOP_CHARACTERS:
            raise _invalid(
                f"sampling.stop[{index}]", f"has {len(stop)} characters", f"must have 1 … {MAX_STOP_CHARACTERS}"
            )
    _check_count("sampling.stop_token_ids", len(sampling.stop_token_ids), MAX_STOP_TOKEN_IDS)


def _check_unsupported(sampling: pb.SamplingParams) -> None:
    for name, neutral in _UNSUPPORTED_SCALARS.items():
        if sampling.HasField(name) and getattr(sampling, name) != neutral:
            raise _unsupported(name, getattr(sampling, name))
    for name in _UNSUPPORTED_COLLECTIONS:
        if len(getattr(sampling, name)):
            raise _unsupported(name, f"{len(getattr(sampling, name))} entries")
    if sampling.HasField("constraint"):
        raise _unsupported("constraint", sampling.constraint.WhichOneof("kind") or "empty")


def _check_number(sampling: pb.SamplingParams, name: str, allowed: Callable[[float], bool], bound: str) -> None:
    if not sampling.HasField(name):
        return
    value = getattr(sampling, name)
    if not math.isfinite(value) or not allowed(value):
        raise _invalid(f"sampling.{name}", f"is {value}", f"must be {bound}")


def _check_count(field: str, count: int, bound: int) -> None:
    if count > bound:
        raise _invalid(field, f"has {count} entries", f"at most {bound} are allowed")


def _check_between(field: str, value: int, low: int, high: int, hint: str) -> None:
    if not low <= value <= high:
        raise _invalid(field, f"is {value}", f"must be {low} … {high}, {hint}")


def _check_key(key: str) -> None:
    if len(key.encode()) > MAX_KEY_BYTES:
        raise _invalid("idempotency_key", f"has {len(key.encode())} bytes", f"must have 1 … {MAX_KEY_BYTES}")


def _check_on_disconnect(on_disconnect: pb.OnDisconnect) -> None:
    action = on_disconnect.WhichOneof("action")
    if action == "grace":
        check_duration("on_disconnect.grace", on_disconnect.grace, zero=True)
    elif action is not None and not getattr(on_disconnect, action):
        raise _invalid(f"on_disconnect.{action}", "is false", "set it to true, or set another action")


def _check_metadata(request: pb.GenerateRequest) -> None:
    _check_count("metadata", len(request.metadata), MAX_METADATA_ENTRIES)
    for key, value in request.metadata.items():
        if not 1 <= len(key.encode()) <= MAX_METADATA_KEY_BYTES:
            raise _invalid(
                "metadata", f"has the key {_shown(key)}", f"keys must have 1 … {MAX_METADATA_KEY_BYTES} bytes"
            )
        if len(value.encode()) > MAX_METADATA_VALUE_BYTES:
            raise _invalid(
                f"metadata[{_shown(key)}]",
                f"has {len(value.encode())} bytes",
                f"at most {MAX_METADATA_VALUE_BYTES} are allowed",
            )


def _unsupported(name: str, value: object) -> InvalidRequestError:
    return _invalid(f"sampling.{name}", f"is set ({value}), but is not supported yet", "leave it out")


def _invalid(field: str, what: str, remedy: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field} {what}: {remedy}", field=field)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
