"""Facts that a model's files state: GGUF metadata or a JSON object, read by key with the type that is expected."""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from shardline_workers.files.model_file_error import ModelFileError

MAX_JSON_BYTES = 64 << 20  # of a configuration; keeps a wrong file from filling the memory
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What one file says. A missing key and null are both None; a wrong type is refused."""

    path: Path
    values: Mapping[str, Any]

    @classmethod
    def read_json(cls, path: Path) -> Self:
        """The object in a JSON file; none at all where there is no such file.

        Raises:
            ModelFileError: it cannot be read, or holds no object.
        """
        try:
            with path.open("rb") as file:
                content = file.read(MAX_JSON_BYTES + 1)
            values = json.loads(content) if len(content) <= MAX_JSON_BYTES else f"more than {MAX_JSON_BYTES} bytes"
        except FileNotFoundError:
            return cls(path, {})
        except (OSError, ValueError, RecursionError) as error:
            values = str(error)
        if not isinstance(values, dict):
            remedy = "Fetch the file again."
            raise ModelFileError.about(path, "not a configuration", value=values, bound="a JSON object", remedy=remedy)
        return cls(path, values)

    def part(self, key: str) -> Self:
        """An object inside; empty where there is none."""
        value = self.values.get(key)
        return type(self)(self.path, value if isinstance(value, dict) else {})

    def text(self, key: str) -> str | None:
        """A string that can be written as UTF-8: JSON can name half a character, and nothing behind us takes one."""
        value = self.values.get(key)
        if value is None or (isinstance(value, str) and not _LONE_SURROGATE.search(value)):
            return value
        raise self.refusal(key, value=value, bound="a string")

    def flag(self, key: str) -> bool | None:
        """True or false."""
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return value
        raise self.refusal(key, value=value, bound="true or false")

    def whole(self, key: str, *, least: int = 0) -> int | None:
        """A whole number of at least `least`."""
        value = self.values.get(key)
        if value is None:
            return None
        if type(value) is not int or value < least:
            raise self.refusal(key, value=value, bound=f"a whole number of at least {least}")
        return value

    def number(self, key: str) -> float | None:
        """A finite number of at least 0."""
        value = self.values.get(key)
        if value is None:
            return None
        if type(value) not in (int, float) or not 0 <= value <= sys.float_info.max:
            raise self.refusal(key, value=value, bound="a finite number of at least 0")
        return float(value)

    def wholes(self, key: str) -> tuple[int, ...]:
        """One whole number or a list of them, as `eos_token_id` has it."""
        value = self.values.get(key)
        numbers = [] if value is None else value if isinstance(value, list) else [value]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise self.refusal(key, value=value, bound="a whole number of at least 0, or a list of such")
        return tuple(numbers)

    def refusal(self, key: str, *, value: object, bound: str) -> ModelFileError:
        """The error that names file and key."""
        remedy = "Take another copy or conversion of the model."
        return ModelFileError.about(self.path, key, value=value, bound=bound, remedy=remedy)
