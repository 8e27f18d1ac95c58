"""What the fields of a key may be, whoever sets them: the Admin service, a keys file.

Each check returns the value as a key holds it and takes the field's path for the message.
"""

import re
from collections.abc import Iterable

from shardline_cluster.access.api_key import Scope
from shardline_cluster.access.caller import DEFAULT_TENANT
from shardline_cluster.access.rate_limiter import LARGEST_LIMIT
from shardline_cluster.errors import InvalidRequestError, shown

MAX_LABEL_CHARACTERS = 200
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")  # also part of Redis keys and metrics


def tenant_of(field: str, tenant: str) -> str:
    """A tenant's name; none is the default tenant.

    Raises:
        InvalidRequestError: it is no name.
    """
    return name_of(field, tenant or DEFAULT_TENANT)


def name_of(field: str, name: str) -> str:
    """A name of a tenant or a key.

    Raises:
        InvalidRequestError: it has no or too many characters, or wrong ones.
    """
    if not _NAME.fullmatch(name):
        raise _invalid(
            field,
            f"is {shown(name)}",
            "must have 1 to 64 characters of a-z, A-Z, 0-9, dot, dash and underscore, the first and last of them "
            "letters or digits",
        )
    return name


def scopes_of(field: str, names: Iterable[str]) -> frozenset[Scope]:
    """Scopes by name; none at all is `generate` alone.

    Raises:
        InvalidRequestError: there is no such scope.
    """
    return frozenset(_scope(field, name) for name in names) or frozenset({Scope.GENERATE})


def _scope(field: str, name: str) -> Scope:
    try:
        return Scope(name)
    except ValueError:
        known = " and ".join(scope.value for scope in Scope)
        raise _invalid(field, f"holds {shown(name)}", f"the scopes are {known}") from None


def limit_of(field: str, value: int | None) -> int | None:
    """A bound for a minute; None is no bound.

    Raises:
        InvalidRequestError: it is no positive number, or beyond everything.
    """
    if value is not None and not 1 <= value <= LARGEST_LIMIT:
        raise _invalid(field, f"is {value}", f"must be 1 to {LARGEST_LIMIT}, or be left out for no limit")
    return value


def label_of(field: str, label: str) -> str:
    """A line for people.

    Raises:
        InvalidRequestError: it is too long or no line.
    """
    if len(label) > MAX_LABEL_CHARACTERS:
        raise _invalid(field, f"has {len(label)} characters", f"at most {MAX_LABEL_CHARACTERS} are allowed")
    if not label.isprintable():
        raise _invalid(field, f"is {shown(label)}", "control characters are not allowed: write one plain line")
    return label


def _invalid(field: str, what: str, remedy: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field} {what}: {remedy}", field=field)
