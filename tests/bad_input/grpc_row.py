"""One row of the table of wrong requests, and short ways to write it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from shardline_protos import generation_pb2 as pb


@dataclass(frozen=True, slots=True)
class Row:
    """What is wrong, the call, and what its message must name. Each of the four is a part of the text, as it stands."""

    what: str
    call: "Call"
    field: str
    value: str
    bound: str
    remedy: str
    code: str = "INVALID_ARGUMENT"

    @property
    def told(self) -> tuple[str, ...]:
        """Everything that the message must contain."""
        return (self.field, self.value, self.bound, self.remedy)


@dataclass(frozen=True, slots=True)
class Call:
    """A method of `shardline.v1.Generation` and the bytes of its request."""

    method: str
    message: bytes


def ask(sampling: Mapping[str, Any] | None = None, **fields: Any) -> Call:
    """A Generate for the tiny model; `text` is there unless another prompt, or None, is given."""
    if not {"text", "token_ids", "chat"} & set(fields):
        fields["text"] = "hello"
    fields = {name: value for name, value in fields.items() if value is not None}
    return Call(
        "Generate", _serialized(pb.GenerateRequest(**({"model": "tiny"} | fields), sampling=_sampling(sampling)))
    )


def ask_of(method: str, message: Message, *, then: bytes = b"") -> Call:
    """Any other method; `then` is put behind its message."""
    return Call(method, _serialized(message) + then)


def raw(message: bytes) -> Call:
    """A Generate of these very bytes."""
    return Call("Generate", message)


def chat(*messages: tuple[str, str]) -> pb.Chat:
    """A conversation of (role, content)."""
    return pb.Chat(messages=[pb.ChatMessage(role=role, content=content) for role, content in messages])


def _sampling(values: Mapping[str, Any] | None) -> pb.SamplingParams | None:
    return None if values is None else pb.SamplingParams(**values)


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
