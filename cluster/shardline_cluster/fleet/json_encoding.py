"""Frozen dataclasses to JSON and back: how specs, deployments and statuses travel and lie in Redis.

Knows dataclasses, enums, tuples, lists, string-keyed dicts, optional and plain values. An unknown field is an error: it
means that two versions meet that should not.
"""

import dataclasses
import json
import types
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from shardline_cluster.errors import ConfigurationError

T = TypeVar("T")


def to_json(value: Any) -> str:
    """A dataclass instance as compact JSON."""
    return json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False)


def from_json(kind: type[T], text: str | bytes) -> T:
    """A dataclass of `kind` out of what `to_json` wrote.

    Raises:
        ConfigurationError: the text is no JSON, or does not describe such a dataclass.
    """
    try:
        built: T = _build(kind, json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(f"this is no {kind.__name__}: {str(text)[:200]!r} ({error})") from error
    return built


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _build(kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        inner = next(a for a in arguments if a is not type(None))
        return None if value is None else _build(inner, value)
    if origin in (tuple, list):
        return _build_sequence(origin, arguments, value)
    if origin is dict:
        return {key: _build(arguments[1], item) for key, item in value.items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    return _checked(kind, value)


def _build_dataclass(kind: type, value: Any) -> Any:
    hints = get_type_hints(kind)
    unknown = set(value) - set(hints)
    if unknown:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    return kind(**{name: _build(hints[name], item) for name, item in value.items()})


def _build_sequence(origin: type, arguments: tuple[Any, ...], value: Any) -> Any:
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        return tuple(_build(a, item) for a, item in zip(arguments, value, strict=True))
    return origin(_build(arguments[0], item) for item in value)


def _checked(kind: Any, value: Any) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise ValueError(f"{value!r} is no {kind.__name__}")
    return value
