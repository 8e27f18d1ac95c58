"""A file of keys: one JSON object a line; empty lines and lines that begin with # are for people.

    {"id": "team-a", "key": "sl-…", "tenant": "a", "requests_per_minute": 60, "expires": "2027-01-31T00:00:00Z"}
    {"id": "ops", "sha256": "9f86d0…", "scopes": ["generate", "admin"]}

`id` and one of `key` and `sha256` (its digest in hexadecimal) are needed. Reads text, touches no disk. No message
repeats a key.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from shardline_cluster.access.api_key import ApiKey, KeyLimits
from shardline_cluster.access.key_fields import label_of, limit_of, name_of, scopes_of, tenant_of
from shardline_cluster.access.key_secret import check_secret, digest_of
from shardline_cluster.errors import ConfigurationError, InvalidRequestError

_DIGEST = re.compile(r"[0-9a-f]{64}")
_REMEDY = {str: "a text in quotes", int: "a whole number", list: "a list of texts"}
_KINDS: Mapping[str, type] = {
    "id": str,
    "key": str,
    "sha256": str,
    "tenant": str,
    "scopes": list,
    "requests_per_minute": int,
    "tokens_per_minute": int,
    "label": str,
    "expires": str,
}


def parse_keys_file(text: str, name: str) -> tuple[ApiKey, ...]:
    """The keys in the text of the file called `name`, in their order.

    Raises:
        ConfigurationError: a line is wrong, or two of them are one key or share an id; it names the line and the field.
    """
    keys: list[ApiKey] = []
    lines: dict[str, int] = {}  # of each id and digest: where it stands
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{name}, line {number}"
        key = _parse_line(line, where)
        for field, value in (("id", key.id), ("key", key.digest)):
            if value in lines:
                raise ConfigurationError(f"{where}: {field} is that of line {lines[value]} already: leave one out")
            lines[value] = number
        keys.append(key)
    return tuple(keys)


def holds_secrets(text: str) -> bool:
    """Whether whoever reads this file has keys; a file of digests only tells nobody any."""
    return '"key"' in text


def _parse_line(line: str, where: str) -> ApiKey:
    entry = _object_in(line, where)
    for field, value in entry.items():
        _check_kind(field, value, where)
    try:
        return ApiKey(
            id=name_of("id", entry.get("id", "")),
            digest=_digest_in(entry, where),
            tenant=tenant_of("tenant", entry.get("tenant", "")),
            scopes=scopes_of("scopes", entry.get("scopes", [])),
            limits=KeyLimits(
                requests_per_minute=limit_of("requests_per_minute", entry.get("requests_per_minute")),
                tokens_per_minute=limit_of("tokens_per_minute", entry.get("tokens_per_minute")),
            ),
            label=label_of("label", entry.get("label", "")),
            expires_ms=_instant_in(entry, where),
        )
    except InvalidRequestError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _object_in(line: str, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(line, object_pairs_hook=_refusing_doubles)
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{where}: this is no JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # such as a number of a million digits
        raise ConfigurationError(f"{where}: {error}") from None
    if not isinstance(entry, dict):
        raise ConfigurationError(f'{where}: this is no object: write {{"id": …, "key": …}} in one line for each key')
    return entry


def _refusing_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry = dict(pairs)
    if len(entry) < len(pairs):
        raise ValueError("a field stands there twice: leave one out")
    return entry


def _check_kind(field: str, value: Any, where: str) -> None:
    kind = _KINDS.get(field)
    if kind is None:
        raise ConfigurationError(f"{where}: {field[:80]!r} is no field of a key; there are: {', '.join(_KINDS)}")
    good = isinstance(value, kind) and not isinstance(value, bool)
    if not good or (kind is list and not all(isinstance(item, str) for item in value)):
        raise ConfigurationError(f"{where}: {field} must be {_REMEDY[kind]}")


def _digest_in(entry: Mapping[str, Any], where: str) -> str:
    if ("key" in entry) == ("sha256" in entry):
        raise ConfigurationError(f"{where}: exactly one of key and sha256 must be there")
    if "key" in entry:
        return digest_of(check_secret(entry["key"], where=f"{where}: key"))
    digest: str = entry["sha256"].lower()
    if not _DIGEST.fullmatch(digest):
        raise ConfigurationError(
            f"{where}: sha256 must be the SHA-256 of a key in 64 hexadecimal digits, as `printf %s KEY | sha256sum` "
            "prints it"
        )
    return digest


def _instant_in(entry: Mapping[str, Any], where: str) -> int | None:
    """Milliseconds since 1970."""
    text = entry.get("expires")
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None:
            raise ValueError
        return int(instant.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{where}: expires is {text[:80]!r}, but must be an instant with its zone, such as 2027-01-31T00:00:00Z"
        ) from None
