"""How tokens are to be chosen, in the words of Triton's vLLM backend: a JSON object, or typed parameters of a request.

Pure. It reads types; whether values make sense is checked where every request is. Numbers and truth values may come as
strings, as that backend allows. A name that is not known is refused: it would change nothing, and nobody would notice.
"""

import json
import math
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from shardline_cluster.errors import SHOWN_CHARACTERS
from shardline_cluster.router.admission.field_checks import invalid
from shardline_protos import generation_pb2 as pb

MAX_JSON_BYTES = 2 * 1024 * 1024
MAX_UINT32 = 2**32 - 1
MAX_UINT64 = 2**64 - 1
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)

Read = Callable[[str, Any], Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """A value as a client sent it, and where."""

    path: str
    value: Any  # anything that JSON has


def settings_of_json(text: str, path: str) -> dict[str, Setting]:
    """The members of a JSON object by name; null counts as absent.

    Raises:
        InvalidRequestError: this is no JSON, no object, or has a name twice.
    """
    if len(text) > MAX_JSON_BYTES:
        raise invalid(path, f"has {len(text)} characters", f"at most {MAX_JSON_BYTES} are allowed")
    try:
        members = json.loads(text, object_pairs_hook=_Members)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise invalid(path, f"is no JSON ({why})", 'send an object, as {"max_tokens": 16}') from error
    if not isinstance(members, _Members):
        raise invalid(path, f"is {_shown(members)}", 'must be a JSON object, as {"max_tokens": 16}')
    return {name: Setting(_member(path, name), value) for name, value in _once(members, path).items()}


def sampling_of(settings: Mapping[str, Setting]) -> tuple[pb.SamplingParams, dict[str, str]]:
    """The sampling fields, and for each field's own path (`sampling.top_k`) the path that the client knows.

    Raises:
        InvalidRequestError: a name is not known, or a value has another type.
    """
    sampling, paths = pb.SamplingParams(), {}
    for name, setting in settings.items():
        if name not in _FIELDS:
            raise invalid(setting.path, "is not known", _REMEDIES.get(name, f"known are: {', '.join(_FIELDS)}"))
        field, read = _FIELDS[name]
        paths[f"sampling.{field}"] = setting.path
        value = read(setting.path, setting.value)
        if isinstance(value, list):
            getattr(sampling, field).extend(value)
        elif isinstance(value, dict):
            getattr(sampling, field).update(value)
        elif value is not None:
            setattr(sampling, field, value)
    return sampling, paths


# --- types -----------------------------------------------------------------------------------------------------------


class _Members(list[tuple[str, Any]]):
    """An object's members in order, so that a name that comes twice is seen."""


def _once(members: _Members, path: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in members:
        if name in values:
            raise invalid(_member(path, name), "is given twice", "say it once")
        values[name] = value
    return {name: value for name, value in values.items() if value is not None}


def _member(path: str, name: str) -> str:
    """The path of a member; half a character, which JSON can hold and messages cannot, is written out."""
    return f"{path}.{name[:SHOWN_CHARACTERS].encode('utf-8', 'backslashreplace').decode()}"


def _number(path: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        _refuse(path, value, "must be a number")
    try:
        return float(value)
    except (ValueError, OverflowError):
        _refuse(path, value, "must be a number")


def _whole(path: str, value: Any, most: int = MAX_UINT32) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        _refuse(path, value, f"must be a whole number, 0 … {most}")
    return value


def _seed(path: str, value: Any) -> int | None:
    """None: the router draws it, which vLLM's clients ask for with -1."""
    return None if value in (-1, "-1") else _whole(path, value, MAX_UINT64)


def _top_k(path: str, value: Any) -> int:
    """Off is 0 here, and -1 as well for vLLM's clients."""
    return 0 if value in (-1, "-1") else _whole(path, value)


def _truth(path: str, value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        _refuse(path, value, "must be true or false")
    return value


def _texts(path: str, value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, _Members) or not isinstance(texts, list):
        _refuse(path, value, "must be a text or a list of texts")
    return [_plain_text(f"{path}[{index}]", text) for index, text in enumerate(texts)]


def _plain_text(path: str, value: Any) -> str:
    if not isinstance(value, str):
        _refuse(path, value, "must be a text")
    if any("\ud800" <= character <= "\udfff" for character in value):
        _refuse(path, value, "holds half a character (a surrogate without its other half): send whole ones")
    return value


def _ids(path: str, value: Any) -> list[int]:
    if isinstance(value, _Members) or not isinstance(value, list):
        _refuse(path, value, "must be a list of token ids")
    return [_whole(f"{path}[{index}]", token_id) for index, token_id in enumerate(value)]


def _biases(path: str, value: Any) -> dict[int, float]:
    if not isinstance(value, _Members):
        _refuse(path, value, 'must be an object, as {"11": -100} in sampling_parameters')
    biases: dict[int, float] = {}
    for name, bias in value:
        token_id = _whole(f"{path}, a token id in it,", name)
        if token_id in biases:
            raise invalid(f"{path}[{token_id}]", "is given twice", "say it once")
        biases[token_id] = _single(f"{path}[{token_id}]", bias)
    return biases


def _single(path: str, value: Any) -> float:
    """A number that fits 32 bits; what is beyond them is infinite, and refused as such."""
    number = _number(path, value)
    return math.copysign(math.inf, number) if abs(number) > 1e38 else number


def _refuse(path: str, value: Any, remedy: str) -> NoReturn:
    raise invalid(path, f"is {_shown(value)}", remedy)


def _shown(value: Any) -> str:
    text = reprlib.repr(dict(value) if isinstance(value, _Members) else value)  # of bounded depth, too
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


_FIELDS: Mapping[str, tuple[str, Read]] = {
    "max_tokens": ("max_tokens", _whole),
    "min_tokens": ("min_tokens", _whole),
    "n": ("n", _whole),
    "temperature": ("temperature", _number),
    "top_p": ("top_p", _number),
    "top_k": ("top_k", _top_k),
    "min_p": ("min_p", _number),
    "seed": ("seed", _seed),
    "stop": ("stop", _texts),
    "stop_token_ids": ("stop_token_ids", _ids),
    "bad_words": ("bad_words", _texts),
    "ignore_eos": ("ignore_eos", _truth),
    "include_stop_str_in_output": ("include_stop_in_output", _truth),
    "skip_special_tokens": ("skip_special_tokens", _truth),
    "logprobs": ("logprobs", _whole),
    "presence_penalty": ("presence_penalty", _number),
    "frequency_penalty": ("frequency_penalty", _number),
    "repetition_penalty": ("repetition_penalty", _number),
    "logit_bias": ("logit_bias", _biases),
}
SAMPLING_NAMES: Sequence[str] = tuple(_FIELDS)
_REMEDIES = {
    "prompt_logprobs": "no output of this service carries them: ask shardline.v1.Generation",
    "stream": "send it as an input tensor",
    "exclude_input_in_output": "send it as an input tensor",
}
