"""How a wrong field is told: its name, what is wrong with its value, the bound and the remedy."""

from collections.abc import Iterable

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from shardline_cluster.errors import InvalidRequestError


def invalid(field: str, what: str, remedy: str) -> InvalidRequestError:
    """The error for a field."""
    return InvalidRequestError(f"{field} {what}: {remedy}", field=field)


def check_count(field: str, count: int, bound: int) -> None:
    """As many entries as are allowed.

    Raises:
        InvalidRequestError: there are more.
    """
    if count > bound:
        raise invalid(field, f"has {count} entries", f"at most {bound} are allowed, send fewer")


def check_token_ids(field: str, ids: Iterable[int], vocab_size: int) -> None:
    """Ids that the model has.

    Raises:
        InvalidRequestError: one is not in the vocabulary.
    """
    for index, token_id in enumerate(ids):
        if token_id >= vocab_size:
            raise invalid(f"{field}[{index}]", f"is {token_id}", f"must be below the vocabulary's {vocab_size}")


def check_no_unknown_fields(message: Message, path: str = "") -> None:
    """Only fields that this router knows, at any depth: one that it dropped in silence could change what was meant.

    Raises:
        InvalidRequestError: a newer client has set another one.
    """
    unknown = UnknownFieldSet(message)
    if len(unknown):
        number = unknown[0].field_number
        raise invalid(
            f"{path}{number}",
            f"is field number {number} of {path.rstrip('.') or 'the request'}, which this router does not know",
            "leave it out, or ask a newer router",
        )
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None or descriptor.message_type.GetOptions().map_entry:
            continue
        for inner in [value] if isinstance(value, Message) else value:
            check_no_unknown_fields(inner, f"{path}{descriptor.name}.")
