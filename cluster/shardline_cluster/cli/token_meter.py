"""How fast a stream came, as a person in front of it sees it."""

import time
from collections.abc import Callable

from shardline.results import Event, Finished, Tokens


class TokenMeter:
    """Watches the events of one stream, from the moment at which it is made."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = clock()
        self._first_token_at: float | None = None
        self._last_token_at: float | None = None
        self._num_first = 0  # tokens in the first event that had any
        self._num_tokens = 0
        self._prompt_tokens: int | None = None

    def watch(self, event: Event) -> None:
        """Takes an event in at the moment at which it came."""
        if isinstance(event, Tokens) and event.token_ids:
            self._last_token_at = self._clock()
            if self._first_token_at is None:
                self._first_token_at = self._last_token_at
                self._num_first = len(event.token_ids)
            self._num_tokens += len(event.token_ids)
        elif isinstance(event, Finished):
            self._prompt_tokens = event.usage.prompt_tokens

    @property
    def first_token_s(self) -> float | None:
        """Time to the first token; None before it."""
        return None if self._first_token_at is None else self._first_token_at - self._began

    @property
    def tokens_per_s(self) -> float | None:
        """Rate after the first event with tokens, whose own wait is told apart; None while there is no second one."""
        if self._first_token_at is None or self._last_token_at is None or self._last_token_at <= self._first_token_at:
            return None
        return (self._num_tokens - self._num_first) / (self._last_token_at - self._first_token_at)

    def summary(self) -> str:
        """A line for people."""
        parts = []
        if self._prompt_tokens is not None:
            parts.append(f"{self._prompt_tokens} prompt tokens")
        parts.append(f"{self._num_tokens} tokens")
        if self.first_token_s is not None:
            parts.append(f"first after {self.first_token_s * 1000:.0f} ms")
        if self.tokens_per_s is not None:
            parts.append(f"{self.tokens_per_s:.1f} tokens/s")
        return ", ".join(parts)
