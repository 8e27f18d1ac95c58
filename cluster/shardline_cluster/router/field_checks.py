"""How a wrong field is told: its name, what is wrong with its value, the bound and the remedy."""

from collections.abc import Iterable

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
