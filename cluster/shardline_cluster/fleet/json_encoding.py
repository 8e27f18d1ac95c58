"""Frozen dataclasses to JSON and back: how specs, deployments and statuses travel and lie in Redis.

Knows dataclasses and unions of them, enums, tuples, lists, frozen sets, string-keyed dicts, optional and plain values.
An unknown field is an error: it means that two versions meet that should not. Errors name the field and never repeat a
value: it may hold a password.
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
        built: T = _build(kind, json.loads(text), "")
    except ValueError as error:  # json's tells a position, ours a field
        raise ConfigurationError(f"this is no {kind.__name__}: {error}") from None
    return built


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(_plain(item) for item in value)  # equal sets are equal texts
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _build(kind: Any, value: Any, path: str) -> Any:
    """A value of `kind`. `path` names the field for errors.

    Raises:
        ValueError: it is none.
    """
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, _checked(dict, value, path), path)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if value is None else _build(_member(arguments, value), value, path)
    if origin in (tuple, list, frozenset):
        return _build_sequence(origin, arguments, _checked(list, value, path), path)
    if origin is dict:
        return {key: _build(arguments[1], v, _inside(path, key)) for key, v in _checked(dict, value, path).items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _build_enum(kind, value, path)
    return _checked(kind, value, path)


def _member(arguments: tuple[Any, ...], value: Any) -> Any:
    """Of a union, the dataclass whose fields a value has; the first member where none is one."""
    members = [a for a in arguments if a is not type(None)]
    names = set(value) if isinstance(value, dict) else set()
    return next((a for a in members if dataclasses.is_dataclass(a) and names == set(get_type_hints(a))), members[0])


def _build_dataclass(kind: type, value: dict[str, Any], path: str) -> Any:
    hints = get_type_hints(kind)
    unknown = set(value) - set(hints)
    if unknown:
        raise ValueError(f"{path or 'it'} has the unknown fields {', '.join(sorted(unknown))}")
    missing = [f.name for f in dataclasses.fields(kind) if _is_required(f) and f.name not in value]
    if missing:
        raise ValueError(f"{path or 'it'} lacks the fields {', '.join(missing)}")
    return kind(**{name: _build(hints[name], item, _inside(path, name)) for name, item in value.items()})


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _build_sequence(origin: type, arguments: tuple[Any, ...], value: list[Any], path: str) -> Any:
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        if len(value) != len(arguments):
            raise ValueError(f"{path} has {len(value)} entries, but must have {len(arguments)}")
        return tuple(_build(a, item, f"{path}[{i}]") for i, (a, item) in enumerate(zip(arguments, value, strict=True)))
    return origin(_build(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))


def _build_enum(kind: type[Enum], value: Any, path: str) -> Enum:
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(str(member.value) for member in kind)
        raise ValueError(f"{path} is none of: {allowed}") from None


def _checked(kind: Any, value: Any, path: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise ValueError(f"{path or 'it'} must be of type {kind.__name__}, but is of type {type(value).__name__}")
    return value


def _inside(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
