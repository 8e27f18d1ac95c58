"""What a router lets in: every field of a request is checked, and what is wrong is told by field, value, bound, remedy.

Nothing is silently dropped: a field that is set and not supported yet is refused by name, also one that only a newer
client knows. Two steps: what can be said without a model, and what needs one.
"""

from google.protobuf.duration_pb2 import Duration

from shardline_cluster.errors import shown
from shardline_cluster.router.admission.field_checks import check_count, check_no_unknown_fields, invalid
from shardline_cluster.router.admission.sampling_validation import (
    ModelLimits,
    check_sampling,
    check_sampling_against_model,
)
from shardline_protos import generation_pb2 as pb

MAX_PRIORITY = 100
MAX_KEY_BYTES = 256
MAX_METADATA_ENTRIES = 16
MAX_METADATA_KEY_BYTES = 64
MAX_METADATA_VALUE_BYTES = 512
MAX_DURATION_S = 30 * 24 * 3600
MAX_MODEL_NAME = 256
MAX_MESSAGES = 4096  # templates walk over them, some more than once for each


def check_request(request: pb.GenerateRequest) -> None:
    """Everything that can be said without a model.

    Raises:
        InvalidRequestError: the first thing that is wrong.
    """
    check_count("chat.messages", len(request.chat.messages), MAX_MESSAGES)
    check_no_unknown_fields(request)
    _check_model_name(request.model)
    _check_prompt(request)
    check_sampling(request.sampling)
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
    if num_prompt_tokens == 0:
        raise invalid("prompt", "has no tokens", "at least one is needed: send some text")
    room = limits.max_model_len - num_prompt_tokens
    if room < 1:
        raise invalid(
            "prompt",
            f"has {num_prompt_tokens} tokens, but the context holds {limits.max_model_len} with at least one of output",
            f"shorten the prompt by {1 - room} tokens",
        )
    check_sampling_against_model(request.sampling, num_prompt_tokens, limits)


def check_duration(field: str, value: Duration, *, zero: bool = False) -> None:
    """A period that makes sense.

    Raises:
        InvalidRequestError: it is negative, zero (unless that is allowed), or longer than 30 days.
    """
    seconds = value.seconds + value.nanos / 1e9
    if not (0 <= seconds <= MAX_DURATION_S) or (seconds == 0 and not zero):
        least = "at least 0 s" if zero else "more than 0 s"
        raise invalid(field, f"is {seconds:g} s", f"must be {least} and at most {MAX_DURATION_S} s (30 days)")


def check_messages(field: str, chat: pb.Chat) -> None:
    """A conversation.

    Raises:
        InvalidRequestError: there is no message, there are too many, or one has no role.
    """
    if not chat.messages:
        raise invalid(f"{field}.messages", "is empty", "send at least one message")
    check_count(f"{field}.messages", len(chat.messages), MAX_MESSAGES)
    for index, message in enumerate(chat.messages):
        if not message.role:
            raise invalid(f"{field}.messages[{index}].role", "is empty", "set it, to `user` for instance")


# --- pieces ----------------------------------------------------------------------------------------------------------


def _check_model_name(model: str) -> None:
    if len(model) > MAX_MODEL_NAME:
        raise invalid("model", f"has {len(model)} characters", f"at most {MAX_MODEL_NAME} are allowed")


def _check_prompt(request: pb.GenerateRequest) -> None:
    kind = request.WhichOneof("prompt")
    if kind is None:
        raise invalid("prompt", "is missing", "set one of text, token_ids and chat")
    if kind == "text" and not request.text:
        raise invalid("text", "is empty", "send at least one character")
    if kind == "token_ids" and not request.token_ids.ids:
        raise invalid("token_ids.ids", "is empty", "send at least one id")
    if kind == "chat":
        check_messages("chat", request.chat)


def _check_between(field: str, value: int, low: int, high: int, hint: str) -> None:
    if not low <= value <= high:
        raise invalid(field, f"is {value}", f"must be {low} … {high}, {hint}")


def _check_key(key: str) -> None:
    if len(key.encode()) > MAX_KEY_BYTES:
        raise invalid("idempotency_key", f"has {len(key.encode())} bytes", f"must have 1 … {MAX_KEY_BYTES}: shorten it")


def _check_on_disconnect(on_disconnect: pb.OnDisconnect) -> None:
    action = on_disconnect.WhichOneof("action")
    if action == "grace":
        check_duration("on_disconnect.grace", on_disconnect.grace, zero=True)
    elif action is not None and not getattr(on_disconnect, action):
        raise invalid(f"on_disconnect.{action}", "is false", "set it to true, or set another action")


def _check_metadata(request: pb.GenerateRequest) -> None:
    check_count("metadata", len(request.metadata), MAX_METADATA_ENTRIES)
    for key, value in request.metadata.items():
        if not 1 <= len(key.encode()) <= MAX_METADATA_KEY_BYTES:
            raise invalid("metadata", f"has the key {shown(key)}", f"keys must have 1 … {MAX_METADATA_KEY_BYTES} bytes")
        if len(value.encode()) > MAX_METADATA_VALUE_BYTES:
            raise invalid(
                f"metadata[{shown(key)}]",
                f"has {len(value.encode())} bytes",
                f"at most {MAX_METADATA_VALUE_BYTES} are allowed",
            )
