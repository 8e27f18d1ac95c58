"""Which requests are sent when: the plan of a load, drawn from one seed before anything is sent. Pure."""

import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LengthRange:
    """Lengths in tokens, drawn evenly from `least` to `most`, both included."""

    least: int
    most: int

    @classmethod
    def parse(cls, text: str) -> "LengthRange":
        """Reads `128` or `64-256`.

        Raises:
            ValueError: this is neither, or the first is larger than the second, or less than 1.
        """
        first, dash, second = text.partition("-")
        lengths = cls(int(first), int(second if dash else first))
        if not 1 <= lengths.least <= lengths.most:
            raise ValueError(f"{text!r} is no range of lengths: write 128, or 64-256")
        return lengths

    def draw(self, rng: random.Random) -> int:
        """One length."""
        return rng.randint(self.least, self.most)

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least}-{self.most}"


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One request to send. `at_s` is the instant from the start of the load; None: as soon as there is room."""

    number: int
    at_s: float | None
    prompt_tokens: int
    output_tokens: int


def closed_loop(
    rng: random.Random, *, num_requests: int, prompt: LengthRange, output: LengthRange
) -> list[PlannedRequest]:
    """Requests that wait for room: so many are always on their way, which measures a server at a constant load."""
    return [PlannedRequest(i, None, prompt.draw(rng), output.draw(rng)) for i in range(num_requests)]


def open_loop(
    rng: random.Random, *, rate_per_s: float, num_requests: int, prompt: LengthRange, output: LengthRange
) -> list[PlannedRequest]:
    """Requests that arrive by themselves (a Poisson process), however slow the server: queues can grow."""
    instants = _poisson(rng, rate_per_s)
    return [PlannedRequest(i, next(instants), prompt.draw(rng), output.draw(rng)) for i in range(num_requests)]


def _poisson(rng: random.Random, rate_per_s: float) -> Iterator[float]:
    instant = 0.0
    while True:
        instant += rng.expovariate(rate_per_s)
        yield instant


def read_trace(path: Path, *, num_requests: int) -> list[PlannedRequest]:
    """Requests as a CSV file tells them: rows of seconds, prompt tokens, output tokens; a header line is passed over.

    Raises:
        ValueError: a row is something else, or the seconds go back; the message names the line.
    """
    with path.open(newline="") as file:
        rows = [(number, row) for number, row in enumerate(csv.reader(file), start=1) if row]
    if rows and not _is_number(rows[0][1][0]):
        del rows[0]
    planned = [_trace_row(path, line, row, i) for i, (line, row) in enumerate(rows[:num_requests])]
    for before, after in pairwise(planned):
        if (after.at_s or 0.0) < (before.at_s or 0.0):
            raise ValueError(f"{path}: request {after.number} comes at {after.at_s} s, before the one above it")
    return planned


def _trace_row(path: Path, line: int, row: list[str], number: int) -> PlannedRequest:
    try:
        seconds, prompt_tokens, output_tokens = row
        planned = PlannedRequest(number, float(seconds), int(prompt_tokens), int(output_tokens))
        if planned.at_s is None or planned.at_s < 0 or planned.prompt_tokens < 1 or planned.output_tokens < 1:
            raise ValueError("a number is too small")
    except ValueError as error:
        raise ValueError(f"{path}:{line}: {row!r} is not seconds,prompt tokens,output tokens ({error})") from None
    return planned


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
